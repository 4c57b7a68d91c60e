"""The order in which the specification is read: pages, and the modules of the reference on each."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from qloracle_conformance.spec.clauses import reference_modules


@dataclass(frozen=True)
class Page:
    """One page of rules."""

    name: str  # file name and anchor
    title: str
    modules: tuple[str, ...]  # names, or shell patterns


PAGES = (
    Page("formats", "Formats", ("formats", "decoding", "positions")),
    Page("rounding", "Rounding", ("rounding", "encoding", "directions")),
    Page("blocks", "Blocks and groups", ("blocks", "groups")),
    Page("packing", "Packing", ("packing",)),
    Page("codebooks", "Codebooks", ("codebooks", "nearest", "nf4", "fp4", "*_map", "conditional_means", "tables")),
    Page("blockwise", "Blockwise quantization", ("blockwise",)),
    Page("double_quantization", "Double quantization", ("double_quant", "nested_absmax", "mean_offset")),
    Page("int8", "Absmax INT8", ("int8", "int8_product", "int8_linear")),
    Page(
        "affine", "Affine quantization", ("affine", "affine_*", "symmetric", "observers", "fake_quant", "odd_products")
    ),
    Page("llm_int8", "LLM.int8()", ("llm_int8", "decomposition")),
    Page(
        "lora",
        "LoRA",
        (
            "lora",
            "embedding_lora",
            "initialization",
            "targets",
            "adapter_patterns",
            "module_names",
            "counting",
            "operands",
        ),
    ),
    Page("dora", "DoRA", ("dora", "dora_*")),
    Page("qlora", "QLoRA", ("qlora", "qdora", "quantized_*")),
    Page(
        "merging",
        "Merging and combining",
        ("merging", "merge_operands", "requantizing", "quantizing_like", "combining"),
    ),
    Page("optimizers", "Optimizers", ("optim", "optim.*")),
    Page(
        "footprint",
        "Memory",
        ("footprint", "footprint.*"),
    ),
    Page("bounds", "Error bounds", ("tracking", "tracking.*", "bounds", "bounds.*")),
    Page("errors", "Errors", ("errors", "records")),
)
FURTHER = Page("further", "Further modules", ())  # so that a new module never breaks the site; a test wants it empty


@cache
def page_of(module: str) -> Page:
    """Return the page of a module: one that names it, else the last one with a pattern that it matches."""
    exact = [page for page in PAGES if module in page.modules]
    matching = [page for page in PAGES if any(fnmatchcase(module, pattern) for pattern in page.modules)]
    return (exact or matching or [FURTHER])[-1]


def modules_of(page: Page) -> list[str]:
    """Return the modules of a page, in the order of its names and patterns."""
    names = [module.__name__.removeprefix("qloracle.") for module in reference_modules()]
    own = [name for name in names if page_of(name) == page]
    return sorted(own, key=lambda n: (next((i for i, m in enumerate(page.modules) if fnmatchcase(n, m)), 0), n))
