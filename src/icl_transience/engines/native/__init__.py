"""The engine for CPUs: recorded matrix products and kernels in C++."""
