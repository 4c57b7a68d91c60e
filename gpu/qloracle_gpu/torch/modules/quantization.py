"""What the linear layers of a model are quantized with."""

from collections.abc import Sequence
from dataclasses import dataclass

from qloracle.codebooks import Codebook
from qloracle.errors import reject_value, require_flag, require_number, require_one_of, require_positive_integer
from qloracle.formats import TENSOR_FORMATS
from qloracle_gpu.torch.codebooks import codebook_named
from qloracle_gpu.torch.int8 import GRANULARITIES
from qloracle_gpu.torch.module_names import strings
from qloracle_gpu.torch.packing import STORAGES

KINDS = ("4bit", "int8")


@dataclass(frozen=True)
class QuantizationConfig:
    """How weights are stored, and how they are multiplied with.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a field is of another type, a number out of its range, a name unknown, a field given that the kind does not
        have, or the codebook has not 16 entries.

    Examples
    --------
    >>> QuantizationConfig(codebook="nf4", double_quant=True, compute_dtype="bfloat16").block_size
    64
    """

    kind: str = "4bit"  # or "int8"
    codebook: str | Codebook = "nf4"  # 4bit: a table of 16 entries
    block_size: int | None = None  # 4bit: of flat blocks, 64 by default; int8: with granularity "block"
    double_quant: bool = False  # 4bit: the absmax are quantized themselves
    nested_codebook: str | Codebook = "dynamic_signed"  # of the absmax
    storage: str = "uint8"  # 4bit: the dtype that the packed bytes are viewed as
    granularity: str = "row"  # int8: which weights share an absmax
    threshold: float | None = None  # int8: LLM.int8()'s, 0 for no outliers; None: activations are not quantized
    compute_dtype: str | None = None  # what x and the dequantized weight are rounded to; training asks for one
    skip_modules: Sequence[str] | None = None  # names, or last components of names; None: the output layer

    def __post_init__(self) -> None:
        """Refuse what no layer can have."""
        require_one_of("kind", self.kind, KINDS)
        if self.kind == "4bit":
            self._check_4bit()
        else:
            self._check_int8()
        if self.compute_dtype is not None:
            require_one_of("compute_dtype", self.compute_dtype, TENSOR_FORMATS)
        if self.skip_modules is not None:
            object.__setattr__(self, "skip_modules", tuple(strings("skip_modules", self.skip_modules)))

    def _check_4bit(self) -> None:
        table = codebook_named(self.codebook)
        if table.code_bits != 4:
            reject_value("codebook", "a table of 16 entries for 4 bits", f"{table.name!r} of {table.entries.size}")
        block_size = 64 if self.block_size is None else self.block_size
        object.__setattr__(self, "block_size", require_positive_integer("block_size", block_size))
        require_flag("double_quant", self.double_quant)
        codebook_named(self.nested_codebook)
        require_one_of("storage", self.storage, STORAGES)
        if self.threshold is not None:
            reject_value("threshold", "None for kind '4bit'", self.threshold)
        if self.granularity != "row":
            reject_value("granularity", "left as it is for kind '4bit', which has flat blocks", repr(self.granularity))

    def _check_int8(self) -> None:
        require_one_of("granularity", self.granularity, GRANULARITIES)
        if self.granularity == "block":
            require_positive_integer("block_size", self.block_size)
        elif self.block_size is not None:
            reject_value("block_size", f"None for granularity {self.granularity!r}", self.block_size)
        for argument, none in (("double_quant", False), ("storage", "uint8"), ("codebook", "nf4")):
            if getattr(self, argument) != none:
                reject_value(argument, "left as it is for kind 'int8'", repr(getattr(self, argument)))
        if self.threshold is None:
            return
        if not require_number("threshold", self.threshold) >= 0:
            reject_value("threshold", "a number of at least 0", self.threshold)
        if self.granularity != "row":
            reject_value("granularity", "'row' for LLM.int8()", repr(self.granularity))
