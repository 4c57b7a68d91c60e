"""Operations that start, combine, place and count adapters."""

from qloracle.counting import BIAS_MODES
from qloracle.initialization import INITIALIZATIONS
from qloracle_conformance.generators import combining, initializing, selecting
from qloracle_conformance.generators.restoring import families
from qloracle_conformance.operations import adapters as judges
from qloracle_conformance.operations.operation import Operation


def operations() -> list[Operation]:
    """Return the operations."""
    plain, modes = judges.plain_intermediates, {"bias": BIAS_MODES}
    counted = dict.fromkeys(("base", "adapter", "bias"), "adapters.count")
    return [
        Operation("lora.init", "lora_init", 2, {"lora_a": "lora.init", "lora_b": "lora.init"}, judges.judge_init,
                  families(initializing.init_case, initializing.FAMILIES), judges.init_intermediates,
                  options={"initialization": INITIALIZATIONS}),
        Operation("embedding.init", "embedding_init", 2,
                  {"lora_a": "lora.init_embedding", "lora_b": "lora.init_embedding"}, judges.judge_embedding_init,
                  families(initializing.embedding_case, initializing.FAMILIES), judges.init_intermediates),
        Operation("adapters.combine", "combine_adapters", 1, {"delta": "adapters.combine"}, judges.judge_combine,
                  families(combining.combine_case, combining.FAMILIES, operation="adapters.combine"),
                  judges.combine_intermediates, strictest="bound", bound="bounds.combine"),
        Operation("adapters.concatenate", "concatenate_adapters", 2,
                  dict.fromkeys(("lora_a", "lora_b"), "adapters.concatenate"), judges.judge_concatenate,
                  families(combining.combine_case, combining.FAMILIES, operation="adapters.concatenate"),
                  judges.combine_intermediates, strictest="bound", bound="bounds.combine"),
        Operation("adapters.targets", "select_targets", 1, {"selected": "adapters.targets"}, judges.judge_targets,
                  families(selecting.target_case, selecting.TARGET_FAMILIES), plain),
        Operation("adapters.patterns", "adapter_settings", 3,
                  dict.fromkeys(("rank", "alpha", "scale"), "adapters.patterns"), judges.judge_patterns,
                  families(selecting.pattern_case, selecting.PATTERN_FAMILIES), plain),
        Operation("adapters.count", "count_parameters", 3, counted, judges.judge_count,
                  families(selecting.count_case, selecting.COUNT_FAMILIES), plain, options=modes),
        Operation("adapters.biases", "trainable_biases", 1, {"trains": "adapters.biases"}, judges.judge_biases,
                  families(selecting.bias_mode_case, ("modes", "memory")), plain, options=modes),
    ]  # fmt: skip
