"""Dependencies point one way, and `import qloracle` stays light.

The checker is a function of source text, so that a planted violation proves that it can fail.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"qloracle": "refimpl", "qloracle_gpu": "gpu", "qloracle_conformance": "conformance"}

# What a GPU backend may take from the reference: tables, formats and errors, never an algorithm.
DATA_MODULES = {
    f"qloracle.{name}"
    for name in (
        "codebooks",
        "dynamic_map",
        "errors",
        "float8_map",
        "formats",
        "fp4",
        "linear_map",
        "nf4",
        "tables",
    )
}
SUITE = {
    "qloracle",
    "qloracle_conformance",
    "hypothesis",
    "jsonschema",
    "numpy",
    "packaging",
    "pytest",
    "rich",
    "safetensors",
    "scipy",
    "threadpoolctl",
    "typer",
}

# What a module may import besides the standard library; the longest name that a module's own name starts with decides.
MAY_IMPORT = {
    "qloracle": {"qloracle", "numpy"},
    "qloracle_gpu": DATA_MODULES,
    "qloracle_gpu.torch": {"qloracle_gpu.torch", "torch", "triton"} | DATA_MODULES,
    "qloracle_gpu.torch.modules": {"qloracle_gpu.torch", "torch", "safetensors"} | DATA_MODULES,
    "qloracle_gpu.torch.conformance": {"qloracle_gpu.torch", "torch", "numpy", "qloracle_conformance"} | DATA_MODULES,
    "qloracle_gpu.torch.conformance_optimizers": {"qloracle_gpu.torch", "torch", "qloracle_conformance"} | DATA_MODULES,
    "qloracle_gpu.torch.conformance_affine": {"qloracle_gpu.torch", "torch", "qloracle_conformance"} | DATA_MODULES,
    "qloracle_gpu.torch.conformance_layers": {"qloracle_gpu.torch", "torch", "qloracle_conformance"} | DATA_MODULES,
    "qloracle_gpu.cupy": {"qloracle_gpu.cupy", "cupy", "numpy"} | DATA_MODULES,
    "qloracle_gpu.cupy.conformance": {"qloracle_gpu.cupy", "cupy", "numpy", "qloracle_conformance"} | DATA_MODULES,
    "qloracle_conformance": SUITE,
    "qloracle_conformance.benchmark": SUITE | {"torch", "cupy", "matplotlib", "bitsandbytes", "torchao"},
    "qloracle_conformance.pages": SUITE | {"jinja2", "markupsafe", "matplotlib"},
    "qloracle_conformance.spec": SUITE | {"sphinx"},
    "qloracle_conformance.adapters": SUITE | {"torch", "bitsandbytes", "torchao", "ml_dtypes", "gfloat"},
    "qloracle_conformance.adapters.peft": SUITE | {"torch", "bitsandbytes", "peft", "transformers"},
    "qloracle_conformance.differences.special": SUITE | {"gfloat"},
}
# What a module may import only inside a function: the derivation of NF4 needs the normal quantiles.
MAY_IMPORT_LATE = {"qloracle.nf4": {"scipy"}}


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[str, int, bool]]:
    """Yield (full name, line, inside a function?) of every import, wherever it stands; `from a import b` is a.b."""

    def visit(node: ast.AST, *, late: bool) -> Iterator[tuple[str, int, bool]]:
        match node:
            case ast.Import():
                yield from ((alias.name, node.lineno, late) for alias in node.names)
            case ast.ImportFrom():
                parents = module.split(".")
                base = parents[: len(parents) + is_package - node.level] if node.level else []
                start = ".".join([*base, *([node.module] if node.module else [])])
                yield from ((f"{start}.{alias.name}", node.lineno, late) for alias in node.names)
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(target)), *_]
            ) if name in {"import_module", "__import__", "importorskip"}:
                yield target, node.lineno, late
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, late=late)

    yield from visit(ast.parse(source), late=False)


def within(name: str, prefix: str) -> bool:
    """Whether `name` is `prefix` or lies below it."""
    return name == prefix or name.startswith(f"{prefix}.")


def layer_violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """One sentence for each import that the layer of `module` does not allow."""
    layer = max((prefix for prefix in MAY_IMPORT if within(module, prefix)), key=len)
    allowed, late_only = MAY_IMPORT[layer], MAY_IMPORT_LATE.get(module, set())
    return [
        f"{module}, line {line}: imports {name}; {layer} may import {', '.join(sorted(allowed))}"
        for name, line, late in imports(source, module, is_package=is_package)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not any(within(name, prefix) for prefix in (allowed | late_only if late else allowed))
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_points_the_allowed_way(package: str) -> None:
    root = ROOT / PACKAGES[package]
    paths = sorted((root / package).rglob("*.py"))
    assert paths, f"{root / package} holds no Python file: nothing was checked"
    found = []
    for path in paths:
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        found += layer_violations(path.read_text(encoding="utf-8"), module, is_package=is_package)
    assert not found, "\n".join(found)


def test_the_data_modules_that_backends_may_read_exist() -> None:
    missing = [
        name for name in sorted(DATA_MODULES) if not (ROOT / "refimpl" / f"{name.replace('.', '/')}.py").exists()
    ]
    assert not missing, f"DATA_MODULES names modules that the reference does not have: {', '.join(missing)}"


def run_import_check(*modules: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "check_import.py"), *modules]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_importing_qloracle_loads_numpy_and_nothing_else() -> None:
    result = run_import_check()
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("intruder", ["scipy", "hypothesis", "pytest", "rich", "typer"])
def test_the_import_check_reports_an_intruder(intruder: str) -> None:
    result = run_import_check("qloracle", intruder)
    assert result.returncode == 1
    assert intruder in result.stderr.partition("it loaded")[2]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("qloracle.blocks", "import scipy"),
        ("qloracle.blocks", "def f():\n    import scipy.stats"),
        ("qloracle.nf4", "from scipy.stats import norm"),
        ("qloracle.blocks", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("qloracle.blocks", "import importlib\nimportlib.import_module('qloracle_conformance')"),
        ("qloracle_gpu.torch.nf4", "from qloracle import quantize_blockwise"),
        ("qloracle_gpu.torch.nf4", "from qloracle.blockwise import quantize_blockwise"),
        ("qloracle_gpu.torch.nf4", "import qloracle"),
        ("qloracle_gpu.torch.nf4", "import cupy"),
        ("qloracle_gpu.torch.nf4", "from ..cupy import nf4"),
        ("qloracle_gpu.torch.nf4", "import qloracle_conformance.backend"),
        ("qloracle_gpu.cupy.nf4", "import torch"),
        ("qloracle_conformance.judge", "from qloracle_gpu.torch import nf4"),
        ("qloracle_conformance.judge", "def f():\n    import torch"),
        ("qloracle_conformance.adapters.reference", "import qloracle_gpu"),
        ("qloracle_conformance.judge", "import requests"),
    ],
)
def test_a_planted_import_against_the_direction_is_reported(module: str, source: str) -> None:
    (message,) = layer_violations(source, module)
    assert message.startswith(f"{module}, line {len(source.splitlines())}: imports ")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("qloracle.nf4", "def f():\n    from scipy.stats import norm"),
        ("qloracle.blocks", "import numpy.typing\nimport math\nfrom . import errors"),
        ("qloracle_gpu.torch.nf4", "import torch\nimport triton.language\nfrom . import ops\nfrom qloracle import nf4"),
        ("qloracle_gpu.torch.conformance", "from qloracle_conformance.backend import Backend"),
        ("qloracle_conformance.adapters.bitsandbytes", "import torch\nimport bitsandbytes.functional"),
    ],
)
def test_an_import_in_the_right_direction_is_not_reported(module: str, source: str) -> None:
    assert layer_violations(source, module) == []
