"""The works of the PyTorch backend, and of bitsandbytes and torchao where they are installed."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import qloracle
from qloracle_conformance.benchmark.elementwise import BLOCK, FORMATS, Quantizer, require_same
from qloracle_conformance.benchmark.works import BenchmarkError, Call, Maker, Work, needed

RANK = 16


class TorchWorks:
    """Makes the works of one device; nothing is computed before a maker is called."""

    name = "torch"

    def __init__(self, device: str) -> None:
        """Import what there is."""
        self.torch = needed("torch", "torch")
        self.own = needed("qloracle_gpu.torch", "torch")
        self.modules = needed("qloracle_gpu.torch.modules", "torch")
        self.device = self.torch.device(device)
        self.rivals = [name for name in ("bitsandbytes", "torchao") if find_spec(name)]  # loaded when they are measured
        if self.device.type == "cuda" and not self.torch.cuda.is_available():
            raise BenchmarkError(f"device {device!r}: PyTorch finds no CUDA device here")

    def products(self, features: int, rows: int, hidden: int) -> Iterator[Work]:
        """Yield the product of one row and of many with an NF4 weight, of INT8 matrices, and a step of training."""
        weight = features * features * (0.5 + 4 / BLOCK)
        gemv = {"torch": partial(self._product, 1, features)} | self._rival("bitsandbytes", "_gemv", features)
        yield Work("nf4.matmul, 1 row", "bfloat16", features**2, gemv, bytes=weight + 4.0 * features)
        gemm = {"torch": partial(self._product, rows, hidden)} | self._rival("bitsandbytes", "_gemm", rows, hidden)
        flops, row = 2.0 * rows * hidden * hidden, float(rows * hidden)
        stored = hidden * hidden * (0.5 + 4 / BLOCK)
        yield Work(f"nf4.matmul, {rows} rows", "bfloat16", hidden**2, gemm, bytes=stored + 4 * row, flops=flops)
        int8 = {"torch": partial(self._int8_product, rows, hidden)}
        yield Work(f"int8.matmul, {rows} rows", "int8", hidden**2, int8, bytes=hidden**2 + 5 * row, flops=flops)
        step = {
            "torch": partial(self._step, rows, hidden),
            "plain linear and LoRA": partial(self._plain_step, rows, hidden),
        } | self._rival("bitsandbytes", "_their_step", rows, hidden)
        yield Work(f"qlora step, {rows} rows", "bfloat16", hidden**2, step, bytes=stored + 8 * row, flops=2 * flops)

    def _rival(self, library: str, method: str, *arguments: Any) -> dict[str, Maker]:
        return {library: partial(getattr(self, method), *arguments)} if library in self.rivals else {}

    def normal(self, shape: int | tuple[int, ...], fmt: str = "float32") -> Any:
        """Return normally distributed numbers on the device."""
        return self.torch.randn(shape, device=self.device).to(getattr(self.torch, fmt))

    def encode(self, elements: int, target: str) -> Call:
        """Return a conversion of normal numbers of float32."""
        return partial(self.own.encode, self.normal(elements), target)

    def quantize(self, quantizer: Quantizer, elements: int) -> Call:
        """Return the quantization of normal numbers."""
        x = self.normal(quantizer.shape(elements), quantizer.format)
        return partial(getattr(self.own, f"quantize_{quantizer.kind}"), x, **quantizer.options)

    def dequantize(self, quantizer: Quantizer, elements: int) -> Call:
        """Return the dequantization of what was quantized."""
        return partial(getattr(self.own, f"dequantize_{quantizer.kind}"), self.quantize(quantizer, elements)())

    def others(self, quantizer: Quantizer, verb: str, elements: int) -> dict[str, Maker]:
        """Return who else does it."""
        if quantizer.kind == "int8":
            return {}
        found = self._rival("bitsandbytes", "_theirs", verb, quantizer, elements)
        if quantizer.kind == "double":
            found |= self._rival("torchao", "_ao_nf4", verb, quantizer.format, elements)
        if quantizer.name == "nf4" and self.device.type == "cpu":
            found |= {"reference": partial(self._reference, verb, quantizer.format, elements)}
        return found

    def _reference(self, verb: str, fmt: str, elements: int) -> Call:
        x = np.random.default_rng(0).standard_normal(elements, np.float32)
        words = x if fmt == "float32" else qloracle.encode(x, fmt)
        quantize = partial(qloracle.quantize_blockwise, words, fmt=fmt)
        return quantize if verb == "quantize" else partial(qloracle.dequantize_blockwise, quantize())

    def _theirs(self, verb: str, quantizer: Quantizer, elements: int) -> Call:
        functions: Any = import_module("bitsandbytes").functional
        x, nested = self.normal(elements, quantizer.format), quantizer.kind == "double"
        if quantizer.name == "dynamic_signed":
            quantize = partial(functions.quantize_blockwise, x, blocksize=BLOCK)
            return quantize if verb == "quantize" else partial(functions.dequantize_blockwise, *quantize())
        options = {"blocksize": BLOCK, "quant_type": quantizer.name[:3], "compress_statistics": nested}
        quantize = partial(functions.quantize_4bit, x, **options)
        return quantize if verb == "quantize" else partial(functions.dequantize_4bit, *quantize())

    def _ao_nf4(self, verb: str, fmt: str, elements: int) -> Call:
        to_nf4 = import_module("torchao.quantization.quantize_.workflows.nf4.nf4_tensor").to_nf4
        quantize = partial(to_nf4, self.normal(elements, fmt), block_size=BLOCK, scaler_block_size=256)
        return quantize if verb == "quantize" else quantize().get_original_weight

    def _product(self, rows: int, features: int) -> Call:
        weight = self.own.quantize_blockwise(self.normal((features, features), "bfloat16"), block_size=BLOCK)
        return partial(self.own.quantized_matmul, self.normal((rows, features), "bfloat16"), weight)

    def _gemv(self, features: int) -> Call:
        return self._gemm(1, features)

    def _gemm(self, rows: int, features: int) -> Call:
        theirs: Any = import_module("bitsandbytes")
        weight = self.normal((features, features), "bfloat16")
        packed, state = theirs.functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
        return partial(theirs.matmul_4bit, self.normal((rows, features), "bfloat16"), packed.t(), state)

    def _int8_product(self, rows: int, features: int) -> Call:
        draw = partial(self.torch.randint, -127, 128, dtype=self.torch.int8, device=self.device)
        return partial(self.own.int8_matmul, draw(size=(rows, features)), draw(size=(features, features)))

    def _step(self, rows: int, features: int) -> Call:
        options: dict[str, Any] = {"block_size": BLOCK, "compute_dtype": "bfloat16", "skip_modules": ()}
        model = self.torch.nn.Sequential(self._linear(features))
        self.modules.quantize_model(model, self.modules.QuantizationConfig(**options))
        self.modules.apply_lora(model, self.modules.LoraConfig(target_modules=["0"], rank=RANK, alpha=2 * RANK))
        return self._forward_and_backward(model, rows, features)

    def _plain_step(self, rows: int, features: int) -> Call:
        nn, linear = self.torch.nn, self._linear(features).requires_grad_(False)
        a = nn.Linear(features, RANK, bias=False, dtype=self.torch.bfloat16, device=self.device)
        b = nn.Linear(RANK, features, bias=False, dtype=self.torch.bfloat16, device=self.device)
        return self._forward_and_backward(lambda x: linear(x) + 2 * b(a(x)), rows, features)

    def _their_step(self, rows: int, features: int) -> Call:
        peft, theirs = needed("peft", "peft"), import_module("bitsandbytes")
        layer = theirs.nn.Linear4bit(
            features, features, bias=False, compute_dtype=self.torch.bfloat16, quant_type="nf4"
        )
        model = self.torch.nn.Sequential(layer).to(self.device)
        config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["0"])
        return self._forward_and_backward(peft.get_peft_model(model, config), rows, features)

    def _linear(self, features: int) -> Any:
        return self.torch.nn.Linear(features, features, bias=False, dtype=self.torch.bfloat16, device=self.device)

    def _forward_and_backward(self, model: Any, rows: int, features: int) -> Call:
        x = self.normal((rows, features), "bfloat16").requires_grad_()
        dy = self.normal((rows, features), "bfloat16")

        def step() -> None:
            model(x).to(dy.dtype).backward(dy)

        return step


def check(works: TorchWorks, elements: int = 1 << 16) -> None:
    """Refuse to time a backend whose NF4 output differs from the reference's in a single bit.

    Raises
    ------
    BenchmarkError
        If it does.
    """
    torch, normal = works.torch, np.random.default_rng(0).standard_normal(elements, np.float32)
    for fmt in FORMATS:
        words = normal if fmt == "float32" else qloracle.encode(normal, fmt)
        plain = qloracle.quantize_blockwise(words, fmt=fmt)
        mine = works.own.quantize_blockwise(torch.from_numpy(normal).to(works.device, getattr(torch, fmt)))
        restored = works.own.dequantize_blockwise(mine)
        pairs = (("codes", mine.data, plain.data), ("absmax", mine.absmax, plain.absmax),
                 ("values", restored, qloracle.dequantize_blockwise(plain)))  # fmt: skip
        require_same(
            (f"NF4 {what} of {fmt}", got.view(torch.uint8).cpu().numpy().tobytes(), wanted.tobytes())
            for what, got, wanted in pairs
        )
