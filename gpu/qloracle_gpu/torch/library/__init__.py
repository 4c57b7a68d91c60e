"""The operators of this package, registered with torch: `torch.ops.qloracle.NAME`.

They take tensors and plain values where the functions take records, and return tensors, new and contiguous. Each has a
rule for shapes (so that `torch.compile`, `torch.export` and `FakeTensorMode` take it), one for `torch.func.vmap` (one
call for every element of the batch), and where a gradient makes sense one for autograd. Their kernels are the functions
of this package, on every device.

==============================  ========================================================================
conversions, packing            ``encode decode pack_4bit unpack_4bit``
blocks                          ``block_absmax quantize_blockwise dequantize_blockwise``
double quantization             ``quantize_absmax dequantize_absmax quantize_double dequantize_double``
affine                          ``affine_parameters quantize_affine dequantize_affine symmetric_scale
                                quantize_symmetric minmax_range percentile_range moving_range``
fake quantization               ``fake_quantize fake_quantize_backward``, the first with a gradient
INT8                            ``quantize_int8 dequantize_int8 int8_matmul scale_int8_matmul int8_linear_forward``
products, with gradients        ``linear quantized_matmul llm_int8_forward lora_forward qlora_forward
                                embedding_lora_forward``
what their gradients call       ``linear_backward quantized_matmul_backward lora_backward qlora_backward
                                embedding_lora_backward``
==============================  ========================================================================

A quantized weight is nine arguments, see `flat_weight`. A codebook is its name, or for a table of one's own the text
that `codebook_text` makes of it. Nothing here takes `torch.func.grad`: torch's registration of gradients does not; the
layers of `modules` do. There are no forward-mode gradients, and no second ones.
"""

from qloracle_gpu.torch.library import affine, blockwise, conversions, embedding, int8, lora, products, qlora

__all__ = ["affine", "blockwise", "conversions", "embedding", "int8", "lora", "products", "qlora"]
