"""Makes a process that has this folder on PYTHONPATH fail where FAULT_AT says: just before a file gets its name.

FAULT_AT: a pattern of file names. FAULT: `kill` cuts the temporary file in half, as a crash in mid-file would leave it,
and kills the process; `wait` says `waiting` in the file FAULT_SIGNAL and waits until something else stands there.
"""

import fnmatch
import os
import pathlib
import signal
import time

if pattern := os.environ.get("FAULT_AT"):
    rename = pathlib.Path.rename

    def fail_or_rename(self, target):
        if fnmatch.fnmatch(pathlib.Path(target).name, pattern):
            if os.environ["FAULT"] == "kill":
                os.truncate(self, self.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            told = pathlib.Path(os.environ["FAULT_SIGNAL"])
            # Once: what is finished gets a second name too.
            if not told.exists():
                told.write_text("waiting")
            while told.read_text() == "waiting":
                time.sleep(0.02)
        return rename(self, target)

    pathlib.Path.rename = fail_or_rename
