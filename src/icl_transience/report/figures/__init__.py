"""The figures of an experiment, and the quality card of a bank: the same, whoever draws them."""

import os

# Before Matplotlib is imported, which fails where a notebook's shell names a backend that is not installed here, and reads
# the user's own settings. Those of a matplotlibrc in the working folder it reads all the same: see style.STYLE.
os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
