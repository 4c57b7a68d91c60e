"""The CUDA kernels on a CPU: a small emulator of CUDA's execution model, and the launcher that drives it with NumPy."""
