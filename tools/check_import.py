"""Import the modules named (`qloracle` if none) and fail if that loads more than the standard library and NumPy."""

import importlib
import sys
from collections.abc import Iterable

ALLOWED = frozenset({"numpy", "qloracle"})


def surplus(loaded: Iterable[str]) -> list[str]:
    """Top-level packages among `loaded` that `import qloracle` has no need of."""
    packages = {name.partition(".")[0] for name in loaded} - ALLOWED - sys.stdlib_module_names
    # A private top-level module (_cyutility, _sysconfigdata_...) comes with a public package or with Python itself.
    return sorted(name for name in packages if not name.startswith("_"))


def main(modules: list[str]) -> str | None:
    """Import `modules`; the sentence that says what is wrong, or None."""
    before = set(sys.modules)
    for module in modules or ["qloracle"]:
        importlib.import_module(module)
    if "numpy" not in sys.modules:
        return "import qloracle did not load NumPy: was the right package imported?"
    # Compiled extensions register helper modules without a spec; nobody imported those.
    loaded = [name for name in set(sys.modules) - before if getattr(sys.modules[name], "__spec__", None) is not None]
    if found := surplus(loaded):
        return f"import qloracle may load the standard library and NumPy only, but it loaded {', '.join(found)}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
