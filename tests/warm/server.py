"""Runs `python -m MODULE …` in forks of a process that has the third-party libraries loaded.

Of the processor time of the tests of the pipeline, two thirds went into loading Snakemake and torch, some hundreds of
times. A fork is a process of its own with its own folder, environment, arguments and streams, and imports this library
afresh; only what is installed beside it is there already. With PLAIN=1 in the environment the tests do without, as
`make test-all` does. Some always do: on Slurm, of `make`, of a queue that takes its machine back.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from pathlib import Path

LIBRARIES = (
    *("faiss", "h5py", "jsonschema", "numpy", "pandas", "safetensors.numpy", "yaml", "PIL.Image", "PIL.PngImagePlugin"),
    *("scipy.optimize", "scipy.special", "scipy.stats", "torch", "torch.nn.functional", "torch.optim.adam"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    *("matplotlib.patheffects", "snakemake.cli", "snakemake.executors.local", "snakemake.executors.dryrun"),
    *("snakemake.report", "snakemake.linting.rules"),
)


def serve(address: str) -> None:
    """Answer the clients at `address`, a socket alone in its folder, until standard input ends; remove the folder."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert "icl_transience" not in sys.modules
    # A fork has the one thread that forked.
    assert len(list(Path("/proc/self/task").iterdir())) == 1
    gc.collect()
    # So that collections in forks copy no pages.
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    attendants: set[int] = set()
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [], 1)
        attendants -= {pid for pid in attendants if os.waitpid(pid, os.WNOHANG)[0]}
        if sys.stdin in ready:
            Path(address).unlink()
            Path(address).parent.rmdir()
            return
        if listening in ready:
            client, _ = listening.accept()
            if not (pid := os.fork()):
                listening.close()
                attend(client)
            attendants.add(pid)
            client.close()


def attend(client: socket.socket) -> None:
    """Run what one client asks for in a fork, send signals on to it, answer how it ended; do not return.

    Where the client is killed, so is what it asked for.
    """
    head, streams, _, _ = socket.recv_fds(client, 4, 3)
    content = bytearray()
    while len(content) < struct.unpack("<I", head)[0]:
        content += client.recv(1 << 20)
    request = json.loads(content.decode("utf-8", "surrogateescape"))
    if not (pid := os.fork()):
        client.close()
        run(request, streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(pid)
    while True:
        ready, _, _ = select.select([client, ended], [], [])
        if ended in ready:
            client.sendall(struct.pack("<i", os.waitpid(pid, 0)[1]))
            os._exit(0)
        numbers = client.recv(16) or bytes([signal.SIGKILL])
        for number in numbers:
            os.kill(pid, number)
        if numbers[-1] == signal.SIGKILL:
            os.waitpid(pid, 0)
            os._exit(0)


def run(request: dict, streams: list[int]) -> None:
    """Become the process that was asked for; do not return."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    # What Python has read of the environment and drawn at its start.
    tempfile.tempdir = None
    random.seed()
    sys.path[:0] = [request["folder"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # Which an interpreter imports at its start, where there is one; another than the machine's, perhaps.
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("sitecustomize")
    module, *sys.argv[1:] = request["arguments"]
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((status or 0) & 255)


if __name__ == "__main__":
    serve(sys.argv[1])
