"""A `LoraConfig` as the text of PEFT's `adapter_config.json`, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from qloracle.errors import QloracleError
from qloracle_gpu.torch.modules.config import LoraConfig
from qloracle_gpu.torch.modules.errors import AdapterFileError

RENAMED = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}
SAME = ("bias", "use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern")
PATTERNS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
# What says where an adapter comes from, or how it was initialized, and not what it computes.
WITHOUT_EFFECT = {
    "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode",
    "init_lora_weights", "fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "ensure_weight_tying",
}  # fmt: skip
# Ways to initialize that leave the base as it was; others have changed the base that the adapter was trained on.
INITIALIZATIONS = (True, False, "gaussian", "eva", "orthogonal")


def to_peft(config: LoraConfig, names: Sequence[str], *, fan_in_fan_out: bool) -> dict[str, Any]:
    """Return the fields of PEFT's config.

    Parameters
    ----------
    config : LoraConfig
    names : sequence of str
        Names of the adapted modules, which take the place of "all-linear", as PEFT writes it.
    fan_in_fan_out : bool
        Whether weights are stored as (d_in, d_out).

    Returns
    -------
    dict

    Examples
    --------
    >>> to_peft(LoraConfig(["q"], rank=4), ["h.0.q"], fan_in_fan_out=False)["target_modules"]
    ['q']
    """
    targets, excluded = config.target_modules, config.exclude_modules
    resolved = sorted(names) if targets == "all-linear" else targets if isinstance(targets, str) else list(targets)
    layers = None if targets == "all-linear" or config.layers_to_transform is None else list(config.layers_to_transform)
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": resolved,
        "exclude_modules": (excluded if isinstance(excluded, str) else list(excluded)) or None,
        "layers_to_transform": layers,
        "layers_pattern": config.layers_pattern,
        "fan_in_fan_out": fan_in_fan_out,
        "init_lora_weights": "gaussian" if config.init == "gaussian" else True,
        "modules_to_save": None,
        **{theirs: _whole(getattr(config, ours)) for ours, theirs in RENAMED.items()},
        **{name: getattr(config, name) for name in SAME},
    }


def from_peft(fields: Mapping[str, Any]) -> LoraConfig:
    r"""Return the config that PEFT's fields stand for; its adapters start empty.

    Raises
    ------
    AdapterFileError
        If the adapter is no LoRA, a field asks for what these modules do not have, or has a value that it cannot have.

    Examples
    --------
    >>> from_peft({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q"]}).alpha
    8
    """
    if fields.get("peft_type") != "LORA":
        raise AdapterFileError(f"peft_type must be 'LORA', got {fields.get('peft_type')!r}")
    start = fields.get("init_lora_weights", True)
    if not any(start is known or (isinstance(start, str) and start == known) for known in INITIALIZATIONS):
        raise AdapterFileError(f"init_lora_weights must be one that leaves the base as it is, got {start!r}")
    known = {*WITHOUT_EFFECT, *RENAMED.values(), *SAME, *PATTERNS}
    for name, value in fields.items():
        if name not in known and value not in (None, False, {}, []):
            raise AdapterFileError(f"{name} must be unset: no module here has it, got {value!r}")
    ours = {ours: fields[theirs] for ours, theirs in RENAMED.items() if theirs in fields}
    same = {name: fields[name] for name in SAME if fields.get(name) is not None}
    try:
        return LoraConfig(**_patterns(fields), **ours, **same, init="empty")
    except QloracleError as error:
        raise AdapterFileError(str(error)) from error


def _patterns(fields: Mapping[str, Any]) -> dict[str, Any]:
    layers, pattern = fields.get("layers_to_transform"), fields.get("layers_pattern")
    if isinstance(pattern, list):
        pattern = "|".join(f"(?:{each})" for each in pattern)
    numbers = [layers] if isinstance(layers, int) else layers
    return {
        "target_modules": fields.get("target_modules") or (),
        "exclude_modules": fields.get("exclude_modules") or (),
        "layers_to_transform": numbers or None,
        # PEFT ignores a pattern that goes with no number.
        "layers_pattern": (pattern or None) if numbers else None,
    }


def _whole(number: float) -> float:
    """Return a number as an integer where it is one, as PEFT writes alpha."""
    return int(number) if float(number).is_integer() else number
