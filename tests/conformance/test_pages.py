"""A report as pages: whole, escaped, the same every time; and in a real browser without any network."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from qloracle_conformance.places import places_of
from qloracle_conformance.reading import Run, read_run
from qloracle_conformance.usage import UsageError

from .commands import Ended, environment, qloracle, refused, require_one_message, write_module

pytest.importorskip("jinja2", reason="NOT RUN: pages need jinja2, which is not installed here")
pytest.importorskip("matplotlib", reason="NOT RUN: pages need matplotlib, which is not installed here")

from qloracle_conformance.pages.detail import errors_text, parts_text, places_text, steps_text
from qloracle_conformance.pages.overview import matrix
from qloracle_conformance.pages.shares import map_of, shares_of
from qloracle_conformance.pages.site import page_names, write_pages

pytestmark = pytest.mark.slow

HOSTILE = "<script>window.injected = 1</script>"
FAMILIES = "*.[bnrs][aoq][mnru]*"  # boundaries, normal, random, ramps, squares
# A boundary of NF4 that is off, a lane that writes nothing, a sum with one rounding too many, a call that raises.
BROKEN = """
    from dataclasses import replace

    import numpy as np

    from qloracle.packing import pack_4bit
    from qloracle.tables import codebook_named
    from qloracle_conformance.adapters.reference import OPS, backend as reference
    from qloracle_conformance.arrays import HostArray, host

    HOSTILE = "<script>window.injected = 1</script>"

    def quantize(x, *, codebook, block_size):
        data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
        flat, table = x.single().reshape(-1), codebook_named(codebook)
        if codebook != "nf4" or not flat.size or not np.isfinite(flat).all():
            return data, absmax
        scale = np.repeat(absmax.items, block_size)[:flat.size].astype(np.float64)
        midpoints = table.midpoints.copy()
        midpoints[9] += 0.002
        with np.errstate(all="ignore"):
            codes = np.searchsorted(midpoints, np.nan_to_num(flat / scale)).astype(np.uint8)
        codes[scale == 0] = table.zero_code
        return host(pack_4bit(codes, table.zero_code)), absmax

    def dequantize(data, absmax, **options):
        out = OPS["dequantize_blockwise"](data, absmax, **options)
        out.items.reshape(-1)[31::32] = 0
        return out

    def pack(codes, *, pad_code):
        raise RuntimeError("no kernel " + HOSTILE)

    base = reference()
    names = ("nf4.quantize", "nf4.dequantize", "packing.pack", "int8.scale")
    claims = tuple(replace(c, basis="promised", source=f"https://example.org/page {HOSTILE} javascript:alert(1)")
                   for c in base.claims if c.operation in names)
    ops = {**OPS, "quantize_blockwise": quantize, "dequantize_blockwise": dequantize, "pack_4bit": pack}
    backend = replace(base, name=HOSTILE, version='1 & "2"', ops=ops, claims=claims, environment={"driver": HOSTILE})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report, its witnesses, and both kinds of pages."""
    made = tmp_path_factory.mktemp("pages")
    name = write_module(made, "broken", BROKEN)
    ended = qloracle(made, "check", "--backend", name, "--only", FAMILIES, "--report", "r.jsonl")
    assert ended.code == 1, str(ended)
    for output in ("site", "one.html"):
        ended = qloracle(made, "html", "r.jsonl", "-o", output)
        assert (ended.code, ended.err.strip()) == (0, ""), str(ended)
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return read_run(folder / "r.jsonl")


class Parsed(HTMLParser):
    """The links, ids, scripts and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [str(found[key]) for key in ("href", "src", "xlink:href") if found.get(key)]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def parsed(folder: Path) -> dict[Path, Parsed]:
    return {path: Parsed(path) for path in (*sorted((folder / "site").rglob("*.html")), folder / "one.html")}


def test_every_property_has_a_page(folder: Path, run: Run) -> None:
    there = {path.name for path in (folder / "site" / "properties").iterdir()}
    assert there == {f"{line['id']}.html" for line in run.properties}


def test_every_link_leads_to_a_page_or_a_mark_on_it(folder: Path, parsed: dict[Path, Parsed]) -> None:
    for path, page in parsed.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert link == "https://example.org/page", f"{path.name}: {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {link}"
            if parts.fragment and target in parsed:
                assert parts.fragment in parsed[target].ids, f"{path.name}: {link}"


def test_no_id_stands_twice_on_a_page(parsed: dict[Path, Parsed]) -> None:
    for path, page in parsed.items():
        twice = {i for i in page.ids if page.ids.count(i) > 1}
        assert not twice, f"{path.name}: {twice}"


def test_what_a_backend_says_is_text_and_never_markup(parsed: dict[Path, Parsed]) -> None:
    for path, page in parsed.items():
        assert page.tags.count("script") == 1, path.name
        assert HOSTILE in page.text or path.parent.name == "rules", (
            f"{path.name} does not show the backend's name or message as it is"
        )


def test_the_pages_are_the_same_from_process_to_process(folder: Path, run: Run, tmp_path: Path) -> None:
    write_pages(run, tmp_path / "one.html", folder / "witnesses")
    assert (tmp_path / "one.html").read_bytes() == (folder / "one.html").read_bytes()


def test_the_page_of_a_failing_property_tells_where_the_fault_is(folder: Path) -> None:
    text = " ".join(Parsed(folder / "site" / "properties" / "nf4.quantize.codes.boundaries.html").text.split())
    assert "position 9 is given where 10 is due" in text
    assert "The boundary between the two is 0.203521252; here it lies at or beyond 0.205" in text
    assert "Smallest failing input" in text
    assert "distance to the nearest boundary" in text
    assert "qloracle replay witnesses/broken_backend.nf4.quantize.codes.boundaries.json" in text
    assert "nearest" in text.partition("Rule [blockwise.quantize]")[2], "the rule's text is missing"
    lane = " ".join(Parsed(folder / "site" / "properties" / "nf4.dequantize.values.ramps.html").text.split())
    assert "lane: element mod 32" in lane


def test_the_plots_are_there_and_described(folder: Path) -> None:
    text = (folder / "site" / "properties" / "nf4.quantize.codes.boundaries.html").read_text(encoding="utf-8")
    assert text.count("<svg") == text.count('role="img"') == text.count("aria-label=") == 3
    for title in ("Failing points on the step function", "Where failing elements lie", "Ordinal errors"):
        assert title in text
    bound = (folder / "site" / "properties" / "int8.scale.y.normal.html").read_text(encoding="utf-8")
    assert "Used part of the bound" in bound
    assert "#0102" not in text, "a placeholder of a colour was left"


def test_the_first_page_has_a_row_for_every_operation_and_passes_nothing_unclaimed(folder: Path, run: Run) -> None:
    operations = {line["operation"] for line in run.properties} | set(run.footer["unclaimed"])
    rows = matrix(run)
    assert sorted(row.name for row in rows) == sorted(operations)
    unclaimed = [row for row in rows if row.name in run.footer["unclaimed"]]
    assert unclaimed
    assert {row.status for row in unclaimed} == {"not-claimed"}
    text = (folder / "site" / "index.html").read_text(encoding="utf-8")
    assert text.count("not claimed: nothing was run") == len(unclaimed)


def test_a_missing_witness_is_said_to_be_missing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    write_pages(run, tmp_path / "one.html", tmp_path / "none")
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "boundaries.json is not at hand: name its folder with --witnesses" in text


def test_a_witness_of_another_run_is_not_shown(folder: Path, run: Run, tmp_path: Path) -> None:
    name = "broken_backend.nf4.quantize.codes.boundaries.json"
    content = json.loads((folder / "witnesses" / name).read_text())
    content["finding"]["got"] = "3"
    (tmp_path / name).write_text(json.dumps(content))
    write_pages(run, tmp_path / "one.html", tmp_path)
    assert "is of another run or version" in (tmp_path / "one.html").read_text(encoding="utf-8")


def test_a_report_of_format_1_has_pages_without_plots(folder: Path, tmp_path: Path) -> None:
    content = [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]
    content[0]["format"] = 1
    added = ("ordinal_errors", "bound_parts", "steps", "places")
    kept = [{k: v for k, v in line.items() if k not in added} for line in content]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    write_pages(read_run(tmp_path / "old.jsonl"), tmp_path / "one.html", None)
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "<svg" not in text
    assert "is of format 1, which has no distributions" in text


def test_a_folder_that_holds_something_else_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(UsageError, match="holds something else than an earlier report"):
        write_pages(run, tmp_path, None)
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no report": (("html", "nowhere.jsonl"), "cannot read nowhere.jsonl"),
    "a folder of witnesses that is none": (
        ("html", "r.jsonl", "--witnesses", "r.jsonl"),
        "--witnesses must be a folder",
    ),
    "a file in the way": (("html", "r.jsonl", "-o", "r.jsonl"), "r.jsonl is a file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_one_line_and_exit_code_2(name: str, folder: Path) -> None:
    arguments, message = WRONG[name]
    require_one_message(refused(folder, *arguments), 2, message)


def test_ids_that_are_no_names_for_files_become_numbers() -> None:
    ids = ["a.b.c", "../../etc", "A.B.C", "x/y", ".hidden", "é", "ok-1_2"]
    assert list(page_names(ids).values()) == [
        "a.b.c.html", "number-1.html", "number-2.html", "number-3.html", "number-4.html", "number-5.html",
        "ok-1_2.html",
    ]  # fmt: skip


@pytest.mark.parametrize(("shape", "block_size"), [((31,), 8), ((9, 7), 0), ((70, 130), 64), ((200, 3), 256)])
def test_shares_are_those_of_the_elements_themselves(shape: tuple[int, ...], block_size: int) -> None:
    wrong = np.random.Generator(np.random.Philox(3)).random(shape) < 0.4
    flat = wrong.reshape(-1)
    places = places_of(wrong, shape[-1] if len(shape) > 1 else 0, block_size)
    shares = {share.title.partition(":")[0].partition(",")[0]: share for share in shares_of(places)}
    for share in shares.values():
        assert len(share.failing) == len(share.members) == len(share.labels)
    assert sum(shares["lane"].members) == flat.size
    assert shares["nibble"].parts == [flat[i::2].mean() for i in range(2)]
    if len(shape) > 1:
        assert sum(shares["row"].members) == sum(shares["column"].members) == flat.size
    if shape == (9, 7):
        assert shares["row"].parts == wrong.mean(axis=1).tolist()
        assert shares["column"].parts == wrong.mean(axis=0).tolist()
    if shape == (31,):
        assert shares["block"].parts == [flat[i : i + 8].mean() for i in range(0, 31, 8)]
        assert dict(zip(shares["tail"].labels, shares["tail"].failing, strict=True))["8"] == flat[24:].sum()
    drawn = map_of(places)
    assert drawn.wrong.tolist() == flat[drawn.start : drawn.start + 2048].tolist()


def test_distributions_in_words() -> None:
    assert errors_text({"-4": 1, "0": 7, "1": 2}) == (
        "7 of 10 elements are the rule's own number; 2 lie above it and 1 below, the farthest by 4 to 7 ordinals."
    )
    assert parts_text([4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], 0.5) == (
        "At most 50.0% of the bound is used by any of 5 elements: headroom 50.0%, or 1.0 bits."
    )
    assert parts_text([4, *[0] * 9, 1], 2.5).startswith("1 of 5 elements lie outside their bound, the farthest by 2.5")
    assert "position 3 is given where 4 is due" in steps_text({"codebook": "x", "pairs": [[4, 3, 2, 0.1, 0.2]]})
    assert "element 3 alone" in places_text(places_of(np.arange(9) == 3, 0, 0))


BAR = "document.querySelector('.controls input[type=search]')"
TYPED = f"{BAR}.dispatchEvent(new Event('input', {{bubbles: true}}))"
SHOWN = "Array.from(document.querySelectorAll('#matrix-table tbody tr')).filter(r => !r.hidden).length"
FIRST = "document.querySelector('table.sortable tbody tr th').textContent.trim()"
COMMON = {
    "width": "document.documentElement.scrollWidth",
    "injected": "typeof window.injected",
    "outside": (
        "Array.from(document.querySelectorAll('.badge, section.broken, h1, figure')).filter("
        "e => e.getBoundingClientRect().right > window.innerWidth).length"
    ),
}
INDEX = {
    **COMMON,
    "operations": "document.querySelectorAll('#matrix-table tbody tr').length",
    "broken": (
        "Array.from(document.querySelectorAll('section.broken h3'), h => h.textContent.replace(/\\s+/g, ' ').trim())"
    ),
    "links": "Array.from(document.querySelectorAll('a[href^=\"properties/\"]')).length",
    "first": FIRST,
    "by name": f"(document.querySelector('#matrix-table th button').click(), {FIRST})",
    "by name, reversed": f"(document.querySelector('#matrix-table th button').click(), {FIRST})",
    "by verdict": f"(document.querySelectorAll('#matrix-table th button')[1].click(), {FIRST})",
    "filtered": f"({BAR}.value = 'packing.pack error', {TYPED}, {SHOWN})",
    "all again": f"({BAR}.value = '', {TYPED}, {SHOWN})",
    "without unclaimed": f"(document.querySelector('.controls input[value=not-claimed]').click(), {SHOWN})",
}
PROPERTIES = {
    **COMMON,
    "rows": "document.querySelectorAll('table tbody tr').length",
    "most failing": (
        "(Array.from(document.querySelectorAll('th button')).filter(b => b.textContent === 'failing')"
        f".forEach(b => {{ b.click(); b.click(); }}), {FIRST})"
    ),
}
DETAIL = {
    **COMMON,
    "plots": "Array.from(document.querySelectorAll('figure svg'), s => s.getBoundingClientRect().width)",
}


def probe(jobs: list[tuple[Path, dict[str, str]]]) -> dict[str, Any]:
    """What a headless browser saw; skipped, with the reason, where none can be started."""
    pytest.importorskip("PyQt6.QtWebEngineCore", reason="NOT RUN: the browser test needs PyQt6-WebEngine")
    variables = {
        **environment(), "QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_DISABLE_SANDBOX": "1",
        "QTWEBENGINE_CHROMIUM_FLAGS": "--no-sandbox --disable-gpu", "QT_LOGGING_RULES": "*=false",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("browser_probe.py"))],
        input=json.dumps([[os.fspath(path), expressions] for path, expressions in jobs]),
        env=variables, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    started, _, answer = done.stdout.partition("\n")
    if started != "started":
        pytest.skip(f"NOT RUN: PyQt6-WebEngine does not start here: {done.stderr.strip()[-300:]}")
    assert answer.strip(), Ended(done.returncode, done.stdout, done.stderr)
    seen: dict[str, Any] = json.loads(answer)
    return seen


def test_a_browser_shows_the_pages_without_a_network(folder: Path, run: Run) -> None:
    site = folder / "site"
    failing = site / "properties" / "nf4.quantize.codes.boundaries.html"
    jobs = [(site / "index.html", INDEX), (site / "properties.html", PROPERTIES), (failing, DETAIL),
            (folder / "one.html", {**INDEX, **DETAIL})]  # fmt: skip
    seen = probe(jobs)
    assert seen["console"] == []
    assert {urlsplit(url).scheme for url in seen["requests"]} == {"file"}
    for page in seen["pages"]:
        assert page["loaded"]
        assert page["injected"] == "undefined"
        assert page["width"] <= 1280, "the page is wider than the window"
        assert page["outside"] == 0, "a verdict or a plot begins or ends outside of the window"
    index, properties, detail, single = seen["pages"]
    operations = {line["operation"] for line in run.properties} | set(run.footer["unclaimed"])
    for page in (index, single):
        assert page["operations"] == len(operations)
        assert any("nf4.quantize codes" in text and "fail" in text for text in page["broken"])
        assert any("nf4.dequantize values" in text for text in page["broken"])
        assert any("packing.pack" in text and "error" in text for text in page["broken"])
        assert (page["by name"], page["by name, reversed"]) == (min(operations), max(operations))
        assert page["by verdict"] == "packing.pack", "an error comes first"
        assert page["filtered"] == 1
        assert page["without unclaimed"] == len({line["operation"] for line in run.properties})
    assert index["all again"] == len(operations)
    assert index["links"] >= len(index["broken"])
    assert properties["rows"] == len(run.properties)
    assert properties["most failing"] == max(run.properties, key=lambda line: line["failing"])["id"]
    assert len(detail["plots"]) == 3
    assert min(detail["plots"]) > 300
    assert single["plots"]
