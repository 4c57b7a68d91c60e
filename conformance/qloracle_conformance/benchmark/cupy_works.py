"""The works of the CuPy backend."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import qloracle
from qloracle_conformance.benchmark.elementwise import BLOCK, Quantizer, require_same
from qloracle_conformance.benchmark.works import Call, Maker, Work, needed


class CupyWorks:
    """Makes the works of the current device."""

    name = "cupy"

    def __init__(self) -> None:
        """Import what there is."""
        self.cupy, self.own = needed("cupy", "cupy"), needed("qloracle_gpu.cupy", "cupy")

    def products(self, features: int, rows: int, hidden: int) -> Iterator[Work]:  # noqa: ARG002  # products of many
        """Yield the product of one row with an NF4 weight; rows are cuBLAS's."""
        weight = features * features * (0.5 + 4 / BLOCK)
        makers = {"cupy": partial(self._product, features)}
        yield Work("nf4.matmul, 1 row", "bfloat16", features**2, makers, bytes=weight + 4.0 * features)

    def normal(self, shape: int | tuple[int, ...], fmt: str) -> tuple[Any, dict[str, str]]:
        """Return normally distributed numbers, and how the backend is told their format."""
        values = self.cupy.random.standard_normal(shape, dtype=self.cupy.float32)
        return (values, {}) if fmt == "float32" else (self.own.encode(values, fmt), {"fmt": fmt})

    def encode(self, elements: int, target: str) -> Call:
        """Return a conversion of normal numbers of float32."""
        return partial(self.own.encode, self.normal(elements, "float32")[0], target)

    def quantize(self, quantizer: Quantizer, elements: int) -> Call:
        """Return the quantization of normal numbers."""
        x, told = self.normal(quantizer.shape(elements), quantizer.format)
        return partial(getattr(self.own, f"quantize_{quantizer.kind}"), x, **quantizer.options, **told)

    def dequantize(self, quantizer: Quantizer, elements: int) -> Call:
        """Return the dequantization of what was quantized."""
        return partial(getattr(self.own, f"dequantize_{quantizer.kind}"), self.quantize(quantizer, elements)())

    def others(self, quantizer: Quantizer, verb: str, elements: int) -> dict[str, Maker]:  # noqa: ARG002  # nobody
        """Return who else does it."""
        return {}

    def _product(self, features: int) -> Call:
        w, told = self.normal((features, features), "bfloat16")
        x, _ = self.normal((1, features), "bfloat16")
        return partial(self.own.quantized_matmul, x, self.own.quantize_blockwise(w, block_size=BLOCK, **told), **told)


def check(works: CupyWorks, elements: int = 1 << 16) -> None:
    """Refuse to time a backend whose NF4 output differs from the reference's in a single bit.

    Raises
    ------
    BenchmarkError
        If it does.
    """
    normal = np.random.default_rng(0).standard_normal(elements, np.float32)
    plain, mine = qloracle.quantize_blockwise(normal), works.own.quantize_blockwise(works.cupy.asarray(normal))
    pairs = (("codes", mine.data, plain.data), ("absmax", mine.absmax, plain.absmax),
             ("values", works.own.dequantize_blockwise(mine), qloracle.dequantize_blockwise(plain)))  # fmt: skip
    require_same((f"NF4 {what}", works.cupy.asnumpy(got).tobytes(), wanted.tobytes()) for what, got, wanted in pairs)
