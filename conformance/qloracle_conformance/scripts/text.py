"""The text of a script, from its facts."""

import json
import sys
from collections.abc import Mapping
from pprint import pformat
from textwrap import fill

import numpy as np

from qloracle.formats import FORMATS, format_named
from qloracle_conformance.arrays import STORAGE, HostArray, place_in
from qloracle_conformance.backend import Backend
from qloracle_conformance.operations.operation import INPUTS
from qloracle_conformance.scripts.checks import nan_words
from qloracle_conformance.scripts.facts import Facts
from qloracle_conformance.scripts.inlining import Inlined, inline, undefined_names
from qloracle_conformance.usage import UsageError
from qloracle_conformance.worker import THREADS

# Libraries read the variable when they are imported.
_THREADS = f'os.environ.setdefault("OMP_NUM_THREADS", "{THREADS}")  # as when it was seen'

_INPUT = '''
def given(dtype, words, storage, shape, strides, offset):
    """Return an input from the words of its memory, in hex; strides and offset count items."""
    width = np.dtype(storage).itemsize
    memory = np.array([int(word, 16) for word in words.split()], f"u{width}").view(storage)
    return PLACE(memory, dtype, shape, strides, offset)


def words_of(native):
    """Return the bits of an array as unsigned integers, its shape, and the name of its type."""
    items, dtype = FETCH(native)
    items = np.ascontiguousarray(items).reshape(np.shape(items))
    return items.view(f"u{items.itemsize}").reshape(-1), items.shape, dtype
'''
_FLOAT = '''
def ordinal(word, sign, nan):
    """Return the place of a word in the order of its format's values; NaN comes after all."""
    if any(lo <= word <= hi for lo, hi in nan):
        return 2**63 - 1
    return -(word & (sign - 1)) - 1 if word & sign else word
'''
_CALL = '''
def call():
    """Make the call; everything by name."""
    result = OPERATION(**inputs(), **OPTIONS)
    return result if isinstance(result, tuple) else (result,)
'''
_RAISED = """
try:
    call()
except Exception as error:
    print(f"the call raises {type(error).__name__}: {error}")
    sys.exit(1)
print("the call returns")
"""
_FORMS = """
wrong = 0
for output, (native, right) in enumerate(zip(call(), RIGHT)):
    _, shape, dtype = words_of(native)
    if (dtype, shape) != right:
        wrong += 1
        print(f"output {output}: {dtype} of shape {shape}, should be {right[0]} of shape {right[1]}")
print(f"{wrong} outputs have another type or shape than they should")
sys.exit(1 if wrong else 0)
"""
_INPUTS = """
arguments = inputs()
before = {name: words_of(a)[0].copy() for name, a in arguments.items() if a is not None}
OPERATION(**arguments, **OPTIONS)
changed = [name for name, words in before.items() if not np.array_equal(words, words_of(arguments[name])[0])]
print(f"the call changed its inputs: {', '.join(changed) or 'none'}")
sys.exit(1 if changed else 0)
"""
_REPEAT = """
first = [words_of(native)[0].copy() for native in call()]
others = sum(
    not all(np.array_equal(a, words_of(b)[0]) for a, b in zip(first, call())) for _ in range(100)
)
print(f"{others} of 100 identical calls gave other bits")
sys.exit(1 if others else 0)
"""
_CHECKS = """
wrong, outputs = 0, call()
for output, index, nibble, kind, allowed, expected in CHECKS:
    word = int(words_of(outputs[output])[0][index])
    word = word >> 4 if nibble == "high" else word & 15 if nibble == "low" else word
    place, value = f"output {output}, element {index}{nibble and f', {nibble} nibble'}", word
{value}    right = value in allowed if kind == "codes" else allowed[0] <= value <= allowed[1]
    wrong += not right
    print(f"{place}: got {word:#x}, allowed {expected}{'' if right else '   <-- wrong'}")
print(f"{wrong} of {len(CHECKS)} elements are wrong")
sys.exit(1 if wrong else 0)
"""


def script_text(facts: Facts, backend: Backend, told: Mapping[str, str]) -> str:
    """Return a script that shows the facts.

    Parameters
    ----------
    facts : Facts
    backend : Backend
    told : mapping of str
        Property, clause and rule (a formula) for the docstring; a reason where one is known.

    Raises
    ------
    UsageError
        If the operation's function or the placing of arrays cannot be written into a script.
    """
    needed = Inlined({"import numpy as np": None})
    names = [inline(f, needed) for f in (backend.place, backend.fetch, backend.ops[facts.operation.function])]
    head = ["#!/usr/bin/env python3", _docstring(backend, told, needed), "from __future__ import annotations\n"]
    body = [
        f"import os\nimport sys\n\n{_THREADS}\n", needed.text(),
        f"\nPLACE, FETCH, OPERATION = {', '.join(names)}",
        f"OPTIONS = {pformat(dict(facts.case.options), width=118, sort_dicts=False)}\n",
        _INPUT, _inputs(facts), _CALL,
    ]  # fmt: skip
    text = "\n".join([*head, *body, _ending(facts)]).replace("\n\n\n\n", "\n\n\n")
    if missing := undefined_names(text):
        missed = ", ".join(missing)
        raise UsageError(f"a script of {backend.name} would not define {missed}: define it at the top of a module")
    return text


def _docstring(backend: Backend, told: Mapping[str, str], needed: Inlined) -> str:
    lines = [f"{backend.name} {backend.version}: {told['property']}.", ""]
    if told.get("reason"):
        lines += [fill(told["reason"], 118), ""]
    lines += [f"Rule ({told['clause']}):" if told.get("clause") else "", told.get("rule", ""), ""]
    roots = {line.split()[1].partition(".")[0] for line in needed.imports}
    packages = ", ".join(sorted(roots - set(sys.stdlib_module_names)))
    lines += [f"Needs {packages}. Exits 1 where the deviation shows, 0 where it is gone. Made by `qloracle",
              "witness-script`: the functions below are the ones that were judged."]  # fmt: skip
    text = "\n".join(line for n, line in enumerate(lines) if line or (n and lines[n - 1])).replace('"""', "'''")
    return '"""' + text.replace("\\", "\\\\") + '\n"""\n'


def _inputs(facts: Facts) -> str:
    """Return the function that makes the inputs anew."""
    lines = ["", "def inputs():", '    """Return the inputs by name."""', "    return {"]
    for name, array in facts.case.inputs.items():
        if array is None:
            lines.append(f"        {name!r}: None,")
            continue
        lines += _one_input(name, array, facts.case.layouts.get(name, "contiguous"))
    return "\n".join([*lines, "    }", ""])


def _one_input(name: str, array: HostArray, layout: str) -> list[str]:
    p = place_in(array, layout)
    storage = np.dtype(STORAGE[array.dtype])
    words = p.buffer.view(f"u{storage.itemsize}").reshape(-1).tolist()
    hexed = [f"{word:0{2 * storage.itemsize}x}" for word in words]
    text = fill(" ".join(hexed), 100, break_long_words=False)
    quoted = [f'            "{line} "' for line in text.splitlines()] or ['            ""']
    kind = storage.str.lstrip("<=|>") if array.dtype != "bool" else "?"
    return [
        f"        {name!r}: given(",
        f"            {array.dtype!r},",
        *quoted[:-1],
        f"{quoted[-1]},",
        f"            {kind!r}, {tuple(p.shape)}, {tuple(p.strides)}, {p.offset},",
        "        ),",
    ]


def _ending(facts: Facts) -> str:
    if facts.raised:
        return f"\n# It raised: {json.dumps(facts.raised)}{_RAISED}"
    if facts.conduct:
        return _INPUTS if facts.conduct == INPUTS else _REPEAT
    if facts.forms:
        return f"\nRIGHT = {pformat(list(facts.forms), width=118)}{_FORMS}"
    rows = [(c.output, c.index, c.nibble, c.kind, c.allowed, c.expected) for c in facts.checks]
    table = "\n".join(f"    {row!r}," for row in rows)
    dtype = facts.checks[0].dtype
    if dtype not in FORMATS:
        signed = dtype.startswith("int")
        bits = 8 * facts.outputs[facts.checks[0].output].items.dtype.itemsize
        value = f"    value = word - (1 << {bits} if word >> {bits - 1} else 0)\n" if signed else ""
        return f"\n# output, element, nibble, kind, allowed, the same in words\nCHECKS = [\n{table}\n]{_CHECKS.replace('{value}', value)}"  # noqa: E501
    named = format_named(dtype)
    sign = named.sign_bit if named.signed else 1 << named.code_bits
    value = f"    value = ordinal(word, {sign:#x}, {nan_words(dtype)})\n"
    note = "# output, element, nibble, kind, allowed ordinals, the same in words"
    return f"{_FLOAT}\n\n{note}\nCHECKS = [\n{table}\n]{_CHECKS.replace('{value}', value)}"
