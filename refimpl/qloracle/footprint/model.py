"""The memory that the weights of a model take, and the number that common tools print instead.

Clauses: ``[footprint.selection]``, ``[footprint.model]``, ``[footprint.printed]``. What single tensors take stands in
`footprint.storage`; what training adds in `footprint.training`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qloracle.errors import reject_type, require_names, require_one_of
from qloracle.footprint.schemes import PLAIN, SCHEMES, Scheme, require_scheme
from qloracle.footprint.storage import table_bytes, tensor_bytes
from qloracle.footprint.tensors import FIXED_BYTES, ModelTensor

SKIPPED = ("lm_head",)
TABLES = ("shared", "per_tensor")


@dataclass(frozen=True)
class Footprint:
    """Bytes of the weights of a model; the parts add up to the total."""

    parameters: int  # elements of all tensors but buffers
    quantized_parameters: int  # of those, the elements that are stored under the scheme
    codes: int
    scales: int
    offsets: int
    tables: int
    unquantized: int  # bytes of parameters in a plain format
    buffers: int
    printed: int  # what summing element_size · nelement over parameters and buffers gives

    @property
    def total(self) -> int:
        """All bytes."""
        return self.codes + self.scales + self.offsets + self.tables + self.unquantized + self.buffers


def quantized_tensors(tensors: Sequence[ModelTensor], *, skip: Sequence[str] = SKIPPED) -> tuple[bool, ...]:
    """Say for each tensor whether a quantizer stores it as codes.

    quantized ⇔ it is the weight of a linear layer, and no module of its name is skipped: a skipped "a.b" takes out
    every name in which ``a`` and ``b`` stand next to each other between dots.

    Parameters
    ----------
    tensors : sequence of ModelTensor
    skip : sequence of str
        Modules that keep their format; by default the language-model head, whose errors go straight to the output.

    Returns
    -------
    tuple of bool

    Raises
    ------
    ArgumentTypeError
        If `tensors` or `skip` holds something else.

    Notes
    -----
    Clause ``[footprint.selection]``. Source: Dettmers et al. 2023, "QLoRA", section 3 (all linear layers of the
    transformer blocks); Dettmers et al. 2022, "LLM.int8()", section 3. Rounding points: none.

    Examples
    --------
    >>> from qloracle.footprint.tensors import named_tensors
    >>> names = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight")
    >>> quantized_tensors(named_tensors((name, (8, 8)) for name in names))
    (False, True, False)
    """
    skip, found = require_names("skip", skip, "a sequence of module names"), require_tensors(tensors)
    return tuple(t.kind == "linear" and not any(f".{name}." in f".{t.name}." for name in skip) for t in found)


def require_tensors(tensors: object) -> tuple[ModelTensor, ...]:
    """Return the tensors as a tuple, or raise unless they are records of known kinds and widths."""
    if not isinstance(tensors, list | tuple) or not all(isinstance(t, ModelTensor) for t in tensors):
        reject_type("tensors", "a sequence of ModelTensor", type(tensors).__name__)
    return tuple(tensors)


def plain_bytes(fmt: str, argument: str) -> int:
    """Return the bytes of an element in a plain format."""
    return SCHEMES[require_one_of(argument, fmt, PLAIN)].code_bits // 8


def model_footprint(
    tensors: Sequence[ModelTensor],
    scheme: str | Scheme,
    *,
    other: str | None = None,
    skip: Sequence[str] = SKIPPED,
    tables: str = "shared",
) -> Footprint:
    """Count the bytes of a model whose linear layers are stored under a scheme.

    total = Σ (codes + scales + offsets) over quantized tensors + tables + Σ n·b over the other parameters + buffers,
    with b the bytes of the format `other`; buffers keep their own width where they have one (booleans take a byte).

    printed = Σ codes + Σ n·b + buffers: the number that a sum of ``element_size · nelement`` over parameters and
    buffers gives. Scales, offsets and tables are no parameters, and nobody counts them.

    Parameters
    ----------
    tensors : sequence of ModelTensor
        From `config_tensors`, `header_tensors` or `named_tensors`.
    scheme : str or Scheme
        A plain format stores every parameter in that format.
    other : {"float32", "float16", "bfloat16"}, optional
        Format of what is not quantized: by default the scheme itself if it is a plain format, else float16.
    skip : sequence of str
        Modules that are not quantized, see `quantized_tensors`.
    tables : {"shared", "per_tensor"}
        Whether a codebook is stored once, or (a variant that libraries ship) with every tensor.

    Returns
    -------
    Footprint

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is none of those.

    Notes
    -----
    Clauses ``[footprint.model]``, ``[footprint.printed]``. Integers only.

    Examples
    --------
    GPT-2: 124,439,808 parameters, 84,934,656 of them in linear layers, and 12 causal masks.

    >>> from qloracle.footprint.configs import config_tensors
    >>> gpt2 = config_tensors({"model_type": "gpt2"})
    >>> for scheme in ("float32", "float16", "llm_int8", "nf4", "nf4_double"):
    ...     f = model_footprint(gpt2, scheme)
    ...     print(f"{scheme:10} printed {f.printed:11,} total {f.total:11,}")
    float32    printed 510,342,192 total 510,342,192
    float16    printed 261,462,552 total 261,462,552
    llm_int8   printed 176,527,896 total 176,859,672
    nf4        printed 134,060,568 total 139,369,048
    nf4_double printed 134,060,568 total 135,409,688
    """
    scheme, found = require_scheme(scheme), require_tensors(tensors)
    require_one_of("tables", tables, TABLES)
    plain = scheme.group == "none"
    width = plain_bytes((scheme.name if plain else "float16") if other is None else other, "other")
    chosen = quantized_tensors(found, skip=skip)
    coded = [] if plain else [t for t, quantized in zip(found, chosen, strict=True) if quantized]
    parts = [tensor_bytes(t.matrix, scheme) for t in coded]
    parameters = sum(t.size for t in found if t.kind != "buffer")
    stored = sum(t.size for t in coded)
    codes = sum(p.codes for p in parts)
    unquantized = (parameters - stored) * width
    buffers = sum(t.size * (width if t.dtype is None else FIXED_BYTES[t.dtype]) for t in found if t.kind == "buffer")
    copies = min(len(coded), 1) if tables == "shared" else len(coded)
    return Footprint(
        parameters=parameters,
        quantized_parameters=stored,
        codes=codes,
        scales=sum(p.scales for p in parts),
        offsets=sum(p.offsets for p in parts),
        tables=copies * table_bytes(scheme),
        unquantized=unquantized,
        buffers=buffers,
        printed=codes + unquantized + buffers,
    )
