"""What a backend is: a frozen record of operations on native arrays, and what it claims about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qloracle.bounds import Roundings
from qloracle.errors import reject_value, require_positive_integer
from qloracle.formats import TENSOR_FORMATS, Array, format_named
from qloracle_conformance.arrays import LAYOUTS
from qloracle_conformance.judge import LEVELS

Level = Literal["exact", "tie", "bound"]
Native = Any  # whatever array the backend's framework uses

FEATURES = ("bias", "dropout", "rank_stabilized", "minus_128", "lora_bias", "fan_in_fan_out", "out")
_KNOWN: dict[str, tuple[object, ...]] = {
    "dtypes": TENSOR_FORMATS,
    "out_dtypes": TENSOR_FORMATS,
    "ndims": (0, 1, 2, 3, 4),
    "layouts": LAYOUTS,
    "features": FEATURES,
}

DEFAULT_BLOCK_SIZES = (1, 2, 7, 32, 64, 100, 128, 256, 1024, 4096)


@dataclass(frozen=True)
class Claim:
    """What a backend says about one operation; nothing that is not claimed is generated."""

    operation: str  # name in `registry.OPERATIONS`, for example "nf4.quantize"
    levels: Mapping[str, Level]  # by stage, for example {"absmax": "exact", "codes": "tie"}
    dtypes: tuple[str, ...] = TENSOR_FORMATS  # formats of the floating-point inputs
    out_dtypes: tuple[str, ...] = TENSOR_FORMATS  # formats of a floating-point output that can be chosen
    block_sizes: tuple[int, ...] = DEFAULT_BLOCK_SIZES
    ndims: tuple[int, ...] = (0, 1, 2, 3, 4)  # of the main input
    empty: bool = True  # whether arrays without elements are accepted
    layouts: tuple[str, ...] = ("contiguous",)
    # Optional parts of matmul-like operations; "out" of any: its function takes out=, one array or a tuple of them.
    features: tuple[str, ...] = ("bias", "dropout", "rank_stabilized")
    options: Mapping[str, tuple[object, ...]] = field(default_factory=dict)  # of Operation.options, by name
    roundings: Roundings = field(default_factory=Roundings)  # for sums: the declared rounding points
    basis: Literal["promised", "assumed"] = "assumed"  # by the library's documentation, or by the adapter's author
    source: str = ""  # where it is promised, or what the assumption rests on

    def __post_init__(self) -> None:
        """Refuse names that do not exist, empty lists, and promises without a source."""
        for stage, level in self.levels.items():
            if level not in LEVELS:
                reject_value(f"levels[{stage!r}] of {self.operation}", f"one of {', '.join(LEVELS)}", repr(level))
        for name, values in self.options.items():
            if not values:
                reject_value(f"options[{name!r}] of {self.operation}", "not empty", values)
        self._require_known_names()
        for argument in ("dtypes", "out_dtypes", "block_sizes", "ndims", "layouts"):
            if not getattr(self, argument):
                reject_value(f"{argument} of {self.operation}", "not empty", getattr(self, argument))
        for block_size in self.block_sizes:
            require_positive_integer(f"block_sizes of {self.operation}", block_size)
        if self.basis == "promised" and not self.source:
            reject_value(f"source of {self.operation}", "given for a promised claim", repr(self.source))

    def _require_known_names(self) -> None:
        for argument, known in _KNOWN.items():
            for value in getattr(self, argument):
                if value not in known:
                    reject_value(f"{argument} of {self.operation}", f"among {', '.join(map(str, known))}", repr(value))
        for name in vars(self.roundings):
            format_named(getattr(self.roundings, name), f"roundings.{name} of {self.operation}")
        if self.basis not in ("promised", "assumed"):
            reject_value(f"basis of {self.operation}", "promised or assumed", repr(self.basis))


_RECORD: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "version": (str, "a text"),
    "place": (Callable, "a function"),  # type: ignore[dict-item]  # isinstance takes it, as the type of all functions
    "fetch": (Callable, "a function"),  # type: ignore[dict-item]
    "ops": (Mapping, "a mapping"),
    "environment": (Mapping, "a mapping"),
    "claims": (tuple, "a tuple"),
}


def _require_members(argument: str, members: Mapping[Any, Any], is_right: Callable[[Any], bool], rule: str) -> None:
    for key, value in members.items():
        if not isinstance(key, str) or not is_right(value):
            reject_value(f"{argument}[{key!r}]", rule, repr(value))


@dataclass(frozen=True)
class Backend:
    """Operations on native arrays, and how arrays get in and out.

    `place(buffer, dtype, shape, strides, offset)` makes a native array from storage items on the host (strides and
    offset in items); `fetch(native)` returns its items as a NumPy array and the name of its type. Operations take and
    return native arrays, so that layouts, poison around them and unmodified inputs test the kernel, not a copy.
    """

    name: str
    version: str
    place: Callable[[Array, str, tuple[int, ...], tuple[int, ...], int], Native]
    fetch: Callable[[Native], tuple[Array, str]]
    ops: Mapping[str, Callable[..., Native]]  # by function name, see `protocols`
    claims: tuple[Claim, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # device, driver, flags: recorded in the report
    # The 1-d array of the whole buffer that `place` laid an array in: shows what a call wrote beside a given output.
    whole: Callable[[Native], Native] | None = None

    def __post_init__(self) -> None:
        """Refuse a record that no report could name, or no call could use."""
        for argument, (kind, rule) in _RECORD.items():
            if not isinstance(getattr(self, argument), kind):
                reject_value(argument, rule, repr(getattr(self, argument)))
        _require_members("ops", self.ops, callable, "a function by its name")
        _require_members("environment", self.environment, lambda v: isinstance(v, str), "a text by its name")
        for claim in self.claims:
            if not isinstance(claim, Claim):
                reject_value("claims", "Claim records", repr(claim))


@dataclass(frozen=True)
class BackendInfo:
    """The part of a backend that leaves its process."""

    name: str
    version: str
    functions: tuple[str, ...]  # names of the operations that are there
    claims: tuple[Claim, ...]
    environment: Mapping[str, str]


def describe(backend: Backend) -> BackendInfo:
    """Return what can be said about a backend without its functions.

    Texts become plain ones: a framework's own kind of text, such as its version, would load the framework elsewhere.
    """
    environment = {str(key): str(value) for key, value in backend.environment.items()}
    claims = tuple(replace(claim, source=str(claim.source)) for claim in backend.claims)
    return BackendInfo(str(backend.name), str(backend.version), tuple(map(str, backend.ops)), claims, environment)
