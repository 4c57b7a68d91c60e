"""Triton kernels: what runs on a CUDA or ROCm device, and in Triton's interpreter where there is none.

The eager code of this package is the fallback on every other device and for what no kernel takes. Kernels use only
what is right both compiled and interpreted: 16-bit formats are read and written as bits, divisions are `div_rn`,
absmax is a maximum of integers. Compile them with ``enable_fp_fusion=False``: a product that rounds must round.
"""
