"""Stands in for `python -m MODULE …`: asks the server to run it, passes signals on, and ends as it ends.

Whatever else is asked of Python a plain interpreter does, and all of it where WARM_SERVER names no server.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import sys

MODULES = ("icl_transience", "snakemake")
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Run the command line; return its exit status."""
    arguments, address = sys.argv[1:], os.environ.get("WARM_SERVER", "")
    if arguments[:1] != ["-m"] or arguments[1] not in MODULES or not os.path.exists(address):
        os.execv(sys.executable, [sys.executable, *arguments])
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        request = json.dumps({"arguments": arguments[1:], "folder": os.getcwd(), "environment": dict(os.environ)})
        content = request.encode("utf-8", "surrogateescape")
        socket.send_fds(server, [struct.pack("<I", len(content))], [0, 1, 2])
        server.sendall(content)

        def pass_on(number, frame) -> None:
            with contextlib.suppress(BrokenPipeError):
                server.sendall(bytes([number]))

        for number in PASSED_ON:
            signal.signal(number, pass_on)
        answer = server.recv(4)
    if len(answer) < 4:
        sys.exit("the server of tests/warm is gone")
    status = os.waitstatus_to_exitcode(struct.unpack("<i", answer)[0])
    if status < 0:
        if -status in PASSED_ON:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


sys.exit(main())
