"""The engine of Triton kernels: few kernels a step however many lanes, no atomics. Only `engine` imports triton."""
