"""A study's results in Python: tables as DataFrames, lanes, snapshots as tensors and modules; nothing is written."""
