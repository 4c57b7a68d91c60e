"""What one adapted layer is made with."""

from dataclasses import dataclass

from qloracle.errors import reject_value, require_flag, require_number, require_one_of, require_positive_integer
from qloracle_gpu.torch.counting import BIAS_MODES
from qloracle_gpu.torch.initialization import INITIALIZATIONS
from qloracle_gpu.torch.lora import lora_scale

STARTS = (*INITIALIZATIONS, "empty")


@dataclass(frozen=True)
class LoraOptions:
    """The adapter of one layer.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a field is of another type, a number out of its range, or a name unknown.

    Examples
    --------
    >>> LoraOptions(rank=16, alpha=32).scale
    2.0
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0  # probability that an element of the adapter's share of x is dropped, in training mode
    bias: str = "none"  # "all" and "lora_only": the layer's own bias trains
    use_rslora: bool = False  # scale by alpha/√rank instead of alpha/rank
    use_dora: bool = False  # train a magnitude for each output
    lora_bias: bool = False  # the adapter has a bias of its own, which is scaled
    init: str = "kaiming"  # of A, while B is zero; "gaussian"; or "empty" zeros for an adapter that is loaded next

    def __post_init__(self) -> None:
        """Refuse what no layer can have."""
        require_positive_integer("rank", self.rank)
        require_number("alpha", self.alpha)
        if not 0 <= require_number("dropout", self.dropout) <= 1:
            reject_value("dropout", "a probability from 0 to 1", self.dropout)
        require_one_of("bias", self.bias, BIAS_MODES)
        for argument in ("use_rslora", "use_dora", "lora_bias"):
            require_flag(argument, getattr(self, argument))
        require_one_of("init", self.init, STARTS)
        if self.use_dora and self.lora_bias:
            reject_value("lora_bias", "False with use_dora: no rule says what its magnitude would scale", True)
        lora_scale(self.alpha, self.rank, rank_stabilized=self.use_rslora)

    @property
    def scale(self) -> float:
        """The s in W + s B A."""
        return lora_scale(self.alpha, self.rank, rank_stabilized=self.use_rslora)
