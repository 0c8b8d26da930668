"""Where what can be made again at any time is kept between jobs: compiled kernels, checksums of large files."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return $ICL_CACHE, or icl-transience in the user's cache folder. It need not exist yet."""
    if named := os.environ.get("ICL_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "icl-transience"
