"""Where ml_dtypes, NumPy, PyTorch and gfloat differ from the reference: measured, explained, and rendered as a page."""
