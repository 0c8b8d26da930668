"""Makes a process that has this folder on PYTHONPATH fail where FAULT_AT says: just before a file gets its name.

FAULT_AT: a pattern of file names. FAULT: `kill` cuts the temporary file in half, as a crash in mid-file would leave it,
and kills the process; `kill after` lets the file get its name first; `wait` says `waiting` in the file FAULT_SIGNAL and
waits until something else stands there; `note` lets things be, and adds the name to that file.
"""

import fnmatch
import os
import pathlib
import signal
import time

if pattern := os.environ.get("FAULT_AT"):
    rename = pathlib.Path.rename

    def fail_or_rename(self, target):
        name = pathlib.Path(target).name
        # A link is a second name for what is whole.
        if fnmatch.fnmatch(name, pattern) and self.suffix == ".tmp":
            fault, told = os.environ["FAULT"], pathlib.Path(os.environ["FAULT_SIGNAL"])
            if fault == "note":
                with told.open("a") as file:
                    file.write(name + "\n")
                return rename(self, target)
            if fault.startswith("kill"):
                if fault == "kill":
                    os.truncate(self, self.stat().st_size // 2)
                else:
                    rename(self, target)
                os.kill(os.getpid(), signal.SIGKILL)
            told.write_text("waiting")
            while told.read_text() == "waiting":
                time.sleep(0.02)
        return rename(self, target)

    pathlib.Path.rename = fail_or_rename
