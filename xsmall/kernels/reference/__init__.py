"""The kernels once more in plain NumPy, slow and obvious: what the tests and benchmarks compare with."""
