"""Operations that multiply with a weight quantized in blocks, and embeddings with LoRA."""

from qloracle.tables import CODEBOOKS
from qloracle_conformance.generators.embedding import REACHED, TERMS, embedding_families
from qloracle_conformance.generators.matmul import matmul_families
from qloracle_conformance.operations import embedding, matmul
from qloracle_conformance.operations.operation import Operation


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    kinds = [*((name, name, "quantized_matmul", "blocks") for name in CODEBOOKS),
             ("nf4_double", "nf4", "double_quantized_matmul", "double")]  # fmt: skip
    for prefix, codebook, function, kind in kinds:
        name = f"{prefix}.matmul"
        made.append(
            Operation(name, function, 1, {"y": "quantized.matmul"}, matmul.judge_matmul,
                      matmul_families(name, codebook, kind), matmul.matmul_intermediates, strictest="bound",
                      bound="bounds.matmul", given=f"{prefix}.dequantize")
        )  # fmt: skip
    forward, backward = "embedding.forward", "embedding.backward"
    return [
        *made,
        Operation(forward, "embedding_lora_forward", 1, {**dict.fromkeys(TERMS, forward), "scale": "lora.scale"},
                  embedding.judge_forward, embedding_families(forward), embedding.forward_intermediates, REACHED,
                  "bound", "bounds.embedding"),
        Operation(backward, "embedding_lora_backward", 2, dict.fromkeys(("lora_a", "lora_b"), backward),
                  embedding.judge_backward, embedding_families(backward), embedding.backward_intermediates,
                  strictest="bound", bound="bounds.embedding"),
    ]  # fmt: skip
