"""Triton kernels: what runs on a CUDA or ROCm device, and in Triton's interpreter where there is none.

The eager code of this package is the fallback on every other device and for what no kernel takes. Kernels use only
what is right both compiled and interpreted: bfloat16 is read as bits, divisions are `div_rn`, absmax is a maximum of
integers. Two things are done in two ways: bfloat16 is rounded to by a GPU's own instruction and, interpreted, by bits;
operands of 16 bits go to a GPU's matrix units and, interpreted, are multiplied as float32, which holds their products.
Compile them with ``enable_fp_fusion=False``: a product that rounds must round.
"""
