"""The figures of an experiment, and the quality card of a bank."""
