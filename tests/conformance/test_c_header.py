"""The C header: it compiles as C89 and C++, holds the reference's tables to the last bit, and is the one that ships."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from qloracle.formats import FORMATS
from qloracle.tables import CODEBOOKS
from qloracle_conformance.c_header.text import header_text, shipped_text

from .c_programs import HEADER, WARNINGS, compiler
from .commands import qloracle, refused, require_one_message

# As published with the method; the derivation is the reference's.
NF4_WORDS = (
    "bf800000 bf3239b1 bf066b30 beca32a0 be91a24d be3d353f bdba7871 00000000 3da2faff 3e24cae3 3e7c04dd 3ead033a"
    " 3ee1a4b8 3f1007ab 3f3913b3 3f800000"
)

STANDARDS = {"c89": "gcc", "c99": "gcc", "c++98": "g++", "c++17": "g++"}
INCLUDED_TWICE = (
    '#include "qloracle.h"\n#include "qloracle.h"\nint main(void) { return qloracle_nf4_words[7] != 0u; }\n'
)

# Prints every table, and counts the doubles whose bits are not the words that stand beside them.
PRINTER = """
#include <stdio.h>
#include <string.h>
#include "qloracle.h"
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define TABLE(name) do { \\
    size_t i; unsigned wrong = 0; \\
    printf(#name); \\
    for (i = 0; i < COUNT(qloracle_##name##_words); i++) printf(" %08x", (unsigned)qloracle_##name##_words[i]); \\
    for (i = 0; i < COUNT(qloracle_##name##_position); i++) printf(" %u", (unsigned)qloracle_##name##_position[i]); \\
    for (i = 0; i < COUNT(qloracle_##name##_codes); i++) printf(" %u", (unsigned)qloracle_##name##_codes[i]); \\
    for (i = 0; i < COUNT(qloracle_##name##_midpoints); i++) { \\
        uint64_t bits; \\
        memcpy(&bits, &qloracle_##name##_midpoints[i], sizeof bits); \\
        printf(" %08x%08x", (unsigned)(bits >> 32), (unsigned)(bits & 0xffffffffu)); \\
        wrong += (unsigned)(bits >> 32) != qloracle_##name##_midpoint_words[i][0]; \\
        wrong += (unsigned)(bits & 0xffffffffu) != qloracle_##name##_midpoint_words[i][1]; \\
    } \\
    printf(" %u\\n", wrong); \\
} while (0)
int main(void) {
"""


def run_c(folder: Path, source: str, standard: str = "c99") -> str:
    """Compile and run a source with the header, and return what it prints."""
    kind, path, program = STANDARDS[standard], folder / "source.c", folder / f"program-{standard}"
    path.write_text(source, encoding="utf-8")
    language = ["-x", "c++" if kind == "g++" else "c"]
    command = [compiler(kind), f"-std={standard}", *WARNINGS, f"-I{HEADER}", *language, str(path), "-o", str(program)]
    subprocess.run(command, check=True, timeout=120)
    return subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=180).stdout


@pytest.mark.parametrize("standard", STANDARDS)
def test_the_header_compiles_without_a_warning_and_twice(standard: str, tmp_path: Path) -> None:
    run_c(tmp_path, INCLUDED_TWICE, standard)


def test_a_compiled_program_sees_every_table_to_the_last_bit(tmp_path: Path) -> None:
    calls = "".join(f"    TABLE({name});\n" for name in CODEBOOKS)
    printed = run_c(tmp_path, f"{PRINTER}{calls}    return 0;\n}}\n").splitlines()
    assert len(printed) == 9
    for line, table in zip(printed, CODEBOOKS.values(), strict=True):
        values = np.unique(table.entries[~np.isnan(table.entries)]).astype(np.float64)  # not the reference's midpoints
        middle = ((values[1:] + values[:-1]) / 2).view(np.uint64)
        expected = [table.name, *(f"{w:08x}" for w in table.entries.view(np.uint32).tolist()),
                    *map(str, table.position.tolist()), *map(str, table.value_order.tolist()),
                    *(f"{w:016x}" for w in middle.tolist()), "0"]  # fmt: skip
        assert line.split() == expected, table.name


def test_the_words_of_nf4_are_the_published_ones(tmp_path: Path) -> None:
    source = f"{PRINTER}    TABLE(nf4);\n    return 0;\n}}\n"
    assert run_c(tmp_path, source).split()[1:17] == NF4_WORDS.split()


def test_every_format_is_there_with_its_fields(tmp_path: Path) -> None:
    fields = ("EXPONENT_BITS", "MANTISSA_BITS", "BIAS", "PADDING_BITS")
    shown = "".join(f'    printf("%d ", QLORACLE_{name.upper()}_{field});\n' for name in FORMATS for field in fields)
    numbers = run_c(tmp_path, f"{PRINTER}{shown}    return 0;\n}}\n").split()
    expected = [[f.exponent_bits, f.mantissa_bits, f.bias, f.padding] for f in FORMATS.values()]
    assert numbers == [str(n) for row in expected for n in row]
    assert "#define QLORACLE_BFLOAT16_QUIET_NAN_BITS 0x7fc0u\n" in header_text()
    assert "#define QLORACLE_FLOAT8_E4M3FN_LARGEST_FINITE_BITS 0x7eu\n" in header_text()


def test_the_shipped_header_is_the_generated_one_and_the_command_writes_it(tmp_path: Path) -> None:
    assert shipped_text() == header_text(), "run `qloracle generate`"
    assert qloracle(tmp_path, "header").out == header_text()
    ended = qloracle(tmp_path, "header", "-o", "made/qloracle.h")
    assert (ended.code, (tmp_path / "made" / "qloracle.h").read_text(encoding="utf-8")) == (0, header_text()), str(
        ended
    )


def test_an_unwritable_header_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    require_one_message(refused(tmp_path, "header", "-o", "file/qloracle.h"), 2, "cannot write file")
