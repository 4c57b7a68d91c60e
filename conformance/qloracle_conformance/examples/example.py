"""The record of a literal worked example."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def input_name(text: str) -> str:
    """Return the name of ``NAME:DTYPE[SHAPE]=VALUES``."""
    return re.split(r"[:\[=]", text, maxsplit=1)[0].strip()


@dataclass(frozen=True)
class Example:
    """Inputs as a user types them, and options; what is not named is left out, or has its default."""

    inputs: tuple[str, ...] = ()  # "NAME=VALUES", see `given`
    options: Mapping[str, Any] = field(default_factory=dict)
    term: str = ""  # stage, where stages are parts of a formula
