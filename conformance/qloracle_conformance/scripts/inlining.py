"""The source of a function and of all it needs, as one text that imports nothing of qloracle.

So a script shows the very code that the suite runs: an adapter and its scripts cannot drift apart.
"""

import ast
import builtins
import dis
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from types import CodeType
from typing import Any

from qloracle_conformance.usage import UsageError

OWN = ("qloracle", "qloracle_conformance", "qloracle_gpu")
ADAPTERS = "qloracle_conformance.adapters."  # modules whose functions are written into the script instead of imported


@dataclass
class Inlined:
    """Parts of a script, in the order in which they must stand."""

    imports: dict[str, None] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # by name of what they define
    homes: dict[str, str] = field(default_factory=dict)  # the module of each

    def text(self) -> str:
        """Return the imports and definitions."""
        plain = sorted(line for line in self.imports if line.startswith("import "))
        named = sorted(line for line in self.imports if line.startswith("from "))
        once = dict.fromkeys(self.sources.values())  # one statement may define several names
        return "\n".join([*plain, *named]) + "\n\n\n" + "\n\n\n".join(once)


def inline(function: Callable[..., Any], into: Inlined) -> str:
    """Write the source of a function, and all that it needs, and return the expression that calls it.

    Parameters
    ----------
    function : function
        Defined at the top of a module, or a `functools.partial` of such a function with plain keyword arguments.
    into : Inlined

    Raises
    ------
    UsageError
        If it is something else, or needs something of qloracle.
    """
    if isinstance(function, partial):
        arguments = [repr(a) for a in function.args] + [f"{k}={v!r}" for k, v in function.keywords.items()]
        _require_plain((*function.args, *function.keywords.values()), function)
        inner = inline(function.func, into)
        into.imports["from functools import partial"] = None
        return f"partial({', '.join([inner, *arguments])})"
    name, module = getattr(function, "__name__", ""), getattr(function, "__module__", "")
    if not inspect.isfunction(function) or function.__qualname__ != name or name == "<lambda>":
        raise UsageError(
            f"a script needs functions from the top of a module, or a functools.partial of one; got {function!r}"
        )
    _add(name, module, into)
    return name


def _require_plain(values: tuple[Any, ...], function: Any) -> None:
    for value in values:
        if not isinstance(value, str | int | float | bool | tuple | None):
            raise UsageError(f"a script needs plain arguments, got {value!r} in {function!r}")


@cache
def _bound(module: str) -> dict[str, list[ast.stmt]]:
    """Return the statements at the top of a module by the names that they bind."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in ast.parse(_source(module)).body:
        for name in _names_of(statement):
            found.setdefault(name, []).append(statement)
    return found


@cache
def _source(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))


def _names_of(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
        case ast.Assign(targets=targets):
            nodes = [node for target in targets for node in ast.walk(target)]
            return [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _add(name: str, module: str, into: Inlined) -> None:
    """Add what a name of a module stands for, after all that it needs."""
    if into.homes.get(name) == module:
        return
    statements = _bound(module)[name]
    if isinstance(statements[0], ast.Import | ast.ImportFrom):
        _add_import(name, module, statements[0], into)
        return
    source = "\n".join(_segment(module, statement) for statement in statements)
    if name in into.sources and into.sources[name] != source:
        raise UsageError(f"a script cannot hold two definitions of {name}: of {into.homes[name]} and of {module}")
    into.homes[name] = module
    for statement in statements:
        for used in _used(statement):
            if used != name and used in _bound(module):
                _add(used, module, into)
    into.sources.pop(name, None)
    into.sources[name] = source


def _segment(module: str, statement: ast.stmt) -> str:
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    return "\n".join(_source(module).splitlines()[first - 1 : statement.end_lineno])


def undefined_names(script: str) -> list[str]:
    """Return the names that a script reads from its module and never defines: running it would crash."""
    stack, read, defined = (
        [compile(script, "script", "exec")],
        set[str](),
        {*dir(builtins), "__annotations__", "__file__"},
    )
    while stack:
        code = stack.pop()
        stack += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                read.add(step.argval)
            if step.opname in ("STORE_GLOBAL", "STORE_NAME"):
                defined.add(step.argval)
    return sorted(read - defined)


def _used(statement: ast.AST) -> Iterator[str]:
    """Yield the names that a statement reads when it runs: annotations are never evaluated in a script."""
    for node in ast.iter_child_nodes(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _refuse_own(node)
        if isinstance(node, ast.arg):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        if isinstance(statement, ast.FunctionDef) and node is statement.returns:
            continue
        if isinstance(statement, ast.AnnAssign) and node is statement.annotation:
            continue
        yield from _used(node)


def _refuse_own(statement: ast.Import | ast.ImportFrom) -> None:
    named = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else [a.name for a in statement.names]
    for module in named:
        if module.partition(".")[0] in OWN:
            raise UsageError(f"a script must not import {module}: the operation's function has to do without it")


def _add_import(name: str, module: str, statement: ast.Import | ast.ImportFrom, into: Inlined) -> None:
    alias = next(a for a in statement.names if (a.asname or a.name.partition(".")[0]) == name)
    renamed = f" as {alias.asname}" if alias.asname else ""
    if isinstance(statement, ast.ImportFrom):
        source = statement.module or ""
        if source.startswith(ADAPTERS):
            if alias.asname:
                raise UsageError(f"a script cannot rename what {module} imports: {source}.{alias.name}{renamed}")
            _add(alias.name, source, into)
            return
        _refuse_own(statement)
        line = f"from {source} import {alias.name}{renamed}"
    else:
        _refuse_own(statement)
        line = f"import {alias.name}{renamed}"
    into.imports[line] = None
