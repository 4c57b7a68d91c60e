"""The data of a module as tables: its constants, and the fields and properties of its records, with their comments."""

import ast
import inspect
import io
import tokenize
from functools import cached_property
from types import ModuleType

from qloracle_conformance.spec.docstrings import parse
from qloracle_conformance.spec.markup import Links, table

_LONGEST = 60  # characters of a value


def constants(module: ModuleType, links: Links) -> list[str]:
    """Return the table of a module's public constants: name, value, and the comment that explains it."""
    source = inspect.getsource(module)
    comments = _comments(source)
    rows = []
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_") and value is not None:
            text = ast.unparse(value)
            shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
            comment = comments.get(node.end_lineno or node.lineno) or comments.get(node.lineno - 1, "")
            rows.append([f"``{target.id}``", links.inline(f"``{shown}``"), links.inline(comment)])
    return table(["constant", "value", "meaning"], rows, "data") if rows else []


def fields(record: type, links: Links) -> list[str]:
    """Return the table of a record's fields and properties."""
    rows = [
        [f"``{name}``", links.inline(f"``{kind}``"), links.inline(comment)]
        for name, kind, comment in commented_fields(inspect.getsource(record))
    ]
    for name, thing in vars(record).items():
        if isinstance(thing, property | cached_property) and not name.startswith("_"):
            rows.append([f"``{name}``", "property", links.inline(parse(thing.__doc__).summary)])
    return table(["field", "type", "meaning"], rows, "data") if rows else []


def commented_fields(source: str) -> list[tuple[str, str, str]]:
    """Return name, type and comment of every annotated field of a class."""
    comments = _comments(source)
    body = ast.parse(source).body[0]
    return [
        (node.target.id, ast.unparse(node.annotation), comments.get(node.end_lineno or node.lineno, ""))
        for node in getattr(body, "body", [])
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]


def _comments(source: str) -> dict[int, str]:
    """Return the comments of a source by line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
