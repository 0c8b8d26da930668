"""HDF5 files that others wrote, to be read."""

from pathlib import Path

import h5py

from icl_transience.specs.errors import StudyError
from icl_transience.store import faults


def opened(path: Path) -> h5py.File:
    """Open a file that somebody else wrote to read; HDF5 locks it, so that nobody writes to it meanwhile.

    Raises StudyError where it may not be read, is being written, or is none of HDF5's.
    """
    try:
        try:
            return h5py.File(path, "r")
        except OSError as error:
            if faults.number_of(error) not in faults.WITHOUT_LOCKS:
                raise
            return h5py.File(path, "r", locking=False)
    except OSError as error:
        wrong = StudyError(f"{path}: not an HDF5 file ({error}): get it again")
        raise (faults.unreadable(path, error) or wrong) from error
