"""What a model is adapted with: the options of its layers, and patterns that say which layers they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from qloracle.errors import require_integer, require_items, require_mapping, require_number, require_positive_integer
from qloracle_gpu.torch.module_names import compiled, of_pattern, strings
from qloracle_gpu.torch.modules.options import LoraOptions


@dataclass(frozen=True)
class LoraConfig:
    r"""The adapters of a model.

    `rank`, `alpha`, `dropout`, `bias`, `use_rslora`, `use_dora`, `lora_bias` and `init` are those of `LoraOptions`; the
    other fields say which modules they apply to.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a field is of another type, a number out of its range, a name unknown, or a regular expression malformed.

    Notes
    -----
    Clauses ``[adapters.targets]``, ``[adapters.patterns]``, ``[adapters.biases]``.

    Examples
    --------
    >>> config = LoraConfig(rank=8, alpha=16, target_modules=["q_proj"], rank_pattern={r"1\.q_proj": 4})
    >>> config.options_for("h.1.q_proj").rank, config.options_for("h.0.q_proj").rank
    (4, 8)
    """

    target_modules: str | Sequence[str]  # a regular expression for whole names, "all-linear", or names
    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    exclude_modules: str | Sequence[str] = ()  # matched like `target_modules`
    layers_to_transform: Sequence[int] | None = None  # numbers of layers, for a list of names
    layers_pattern: str | None = None  # regular expression of the component before the number
    rank_pattern: Mapping[str, int] = field(default_factory=dict)  # of regular expressions
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    bias: str = "none"  # which biases of the model train: none, all, or lora_only: those of adapted layers
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    init: str = "kaiming"

    def __post_init__(self) -> None:
        """Refuse what no model can have; keep lists as tuples and mappings as copies."""
        for argument in ("target_modules", "exclude_modules"):
            value = getattr(self, argument)
            if isinstance(value, str):
                compiled(argument, value)
            else:
                object.__setattr__(self, argument, tuple(strings(argument, value)))
        if self.layers_to_transform is not None:
            rule = "a sequence of integers"
            numbers = require_items("layers_to_transform", self.layers_to_transform, rule)
            checked = tuple(require_integer("layers_to_transform", number, rule) for number in numbers)
            object.__setattr__(self, "layers_to_transform", checked)
        if self.layers_pattern is not None:
            compiled("layers_pattern", self.layers_pattern)
        for argument in ("rank_pattern", "alpha_pattern"):
            self._keep_pattern(argument)
        self.options_for("")

    def _keep_pattern(self, argument: str) -> None:
        patterns = require_mapping(argument, getattr(self, argument), "a mapping of regular expressions")
        for pattern, value in patterns.items():
            compiled(argument, pattern)
            if argument == "rank_pattern":
                require_positive_integer("rank", value)
            else:
                require_number("alpha", value)
        object.__setattr__(self, argument, dict(patterns))

    def options_for(self, name: str) -> LoraOptions:
        """Return the options of the module of a name."""
        shared = {option.name: getattr(self, option.name) for option in fields(LoraOptions)}
        options = LoraOptions(**shared)
        return replace(
            options,
            rank=int(of_pattern("rank_pattern", self.rank_pattern, name, self.rank)),
            alpha=of_pattern("alpha_pattern", self.alpha_pattern, name, self.alpha),
        )
