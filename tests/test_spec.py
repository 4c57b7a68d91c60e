"""The specification as a document: rounding points, coverage, markup, changelog, and the site itself."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

import qloracle
from qloracle_conformance.files import FileError
from qloracle_conformance.plan import UsageError
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.spec.changelog import changes, recorded
from qloracle_conformance.spec.clauses import clauses
from qloracle_conformance.spec.contents import FURTHER, PAGES, modules_of
from qloracle_conformance.spec.coverage import MUTANTS, coverage, deaths
from qloracle_conformance.spec.data import commented_fields
from qloracle_conformance.spec.differences import DIFFERENCES, differences_page, markdown
from qloracle_conformance.spec.docstrings import Entry, entries, parse
from qloracle_conformance.spec.markup import Links, table
from qloracle_conformance.spec.rounding_points import rounding_points, statement
from qloracle_conformance.spec.site import build
from qloracle_conformance.spec.tables import codebooks

ROOT = Path(__file__).resolve().parent.parent
LINKS = Links(frozenset({"nf4.table"}), {"encode": ":py:obj:`encode <qloracle.rounding.encode>`"})


@pytest.mark.parametrize("clause", clauses())
def test_every_clause_says_where_it_rounds(clause: str) -> None:
    assert rounding_points(clause), (
        f"no docstring that carries {clause} says 'Rounding points, in order: …', 'Rounding points: none.',"
        " 'Rounding points of an implementation: …' or 'Roundings on a path: …'"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Clause ``[a.b]``. Rounding points: none.", ("rule", (), "")),
        ("Rounding points, in order: the product; the sum. Source: a book.", ("rule", ("the product", "the sum"), "")),
        ("Rounding points: one, to `fmt`.", ("rule", ("to `fmt`",), "")),
        ("Rounding points: one. It is exact.", ("rule", ("the result",), "It is exact.")),
        ("Rounding\npoints: none; float64 decides.", ("rule", (), "Float64 decides.")),
        ("Clause x. No arithmetic.", ("rule", (), "")),
        ("Rounding points: one for each end; the sum is exact.", ("rule", ("one for each end",), "The sum is exact.")),
        ("Rounding points: one. float64 holds it.", ("rule", ("the result",), "float64 holds it.")),
        ("Rounding points of an implementation are declared.", ("implementation", ("declared",), "")),
        ("Rounding points of an implementation: see the bound.", ("implementation", ("see the bound",), "")),
        ("Roundings on a path to m: one; two.", ("bound", ("one; two",), "")),
        ("Rounding happens.", None),
    ],
)
def test_a_statement_of_rounding_points_is_taken_apart(text: str, expected: object) -> None:
    assert statement(text) == expected


def test_a_docstring_is_taken_apart() -> None:
    parsed = parse(
        "One\n    line.\n\n    x = y\n\n    Parameters\n    ----------\n    x, y : array\n        What.\n    z : int\n"
    )
    assert (parsed.summary, parsed.rule) == ("One line.", "x = y")
    assert entries(parsed.sections["Parameters"]) == [Entry("x, y", "array", "What."), Entry("z", "int", "")]


def test_the_fields_of_a_record_come_with_their_comments() -> None:
    source = 'class A:\n    """A."""\n\n    x: int  # of it\n    y: tuple[int, ...]\n'
    assert commented_fields(source) == [("x", "int", "of it"), ("y", "tuple[int, ...]", "")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max |x_i| * 2", "max \\|x\\_i\\| \\* 2"),
        ("see `encode`.", "see \\ :py:obj:`encode <qloracle.rounding.encode>`\\ ."),
        ("`other` and ``[x]``", "\\ ``other``\\  and \\ ``[x]``\\ "),
        ("``[nf4.table]`` and [nf4.table]", "{link} and {link}"),
        ("a::", "a:\\:"),
    ],
)
def test_text_is_escaped_and_its_names_are_links(text: str, expected: str) -> None:
    link = "\\ :ref:`[nf4.table] <clause-nf4.table>`\\ "
    assert LINKS.inline(text) == expected.replace("{link}", link)


def test_formulas_lists_and_examples_keep_their_form() -> None:
    body = "\n".join(LINKS.body("Text:\n\n    y = x\n\n- one\n- two\n  more\n\n>>> f(1)\n2\n\na = 1\nb = 2"))
    assert ".. code-block:: text\n\n   y = x" in body
    assert "- one\n- two more" in body
    assert ".. code-block:: pycon\n\n   >>> f(1)\n   2" in body
    assert "   a = 1\n   b = 2" in body
    assert table(["a"], [["x\ny"]])[-4:-1] == ["   * - a", "   * - x", "       y"]


def test_every_module_of_the_reference_has_a_page() -> None:
    assert not modules_of(FURTHER), f"name these modules in contents.PAGES: {', '.join(modules_of(FURTHER))}"
    assert [page.name for page in PAGES if not modules_of(page)] == []


def test_the_changelog_knows_every_clause_and_the_version() -> None:
    assert changes()[0][0] == qloracle.SPECIFICATION_VERSION
    assert set(clauses()) - set(recorded()) == set(), "clauses that the changelog does not add"
    assert set(recorded()) - set(clauses()) == set(), "clauses that are gone and that the changelog does not remove"


def test_coverage_lists_every_clause_with_what_stands_behind_it() -> None:
    covered = {c.clause: c for c in coverage(ROOT)}
    assert list(covered) == list(clauses())
    quantize = covered["blockwise.quantize"]
    assert "nf4.quantize" in quantize.operations
    assert quantize.properties > 10
    assert quantize.carriers[0].endswith(".quantize_codes")


def test_mutants_are_read_from_the_committed_kill_matrix(tmp_path: Path) -> None:
    assert deaths(tmp_path) == {}
    path = tmp_path / MUTANTS
    path.parent.mkdir()
    kill = {"mutant": "m", "clause": "a.b", "bound": "bounds.a", "right_stage": True}
    path.write_text(json.dumps({"kills": [kill, {**kill, "mutant": "n", "right_stage": False}]}), encoding="utf-8")
    assert deaths(tmp_path) == {"a.b": ["m"], "bounds.a": ["m"]}
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(FileError, match="no kill matrix"):
        deaths(tmp_path)


def test_differences_are_shown_where_they_are_recorded(tmp_path: Path) -> None:
    assert "not yet run" in "\n".join(differences_page(LINKS, tmp_path))
    path = tmp_path / DIFFERENCES
    path.parent.mkdir()
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(FileError, match="no comparison"):
        differences_page(LINKS, tmp_path)


def test_the_markdown_of_the_differences_becomes_a_page() -> None:
    text = "# Top\n\nText [nf4.table].\n\n## Part\n\n| a | b |\n| --- | --- |\n| <1> | 2 |\n"
    page = "\n".join(markdown(text, LINKS))
    assert "Top" not in page
    assert "<clause-nf4.table>" in page
    assert "Part\n------" in page
    assert "<td>&lt;1&gt;</td><td>2</td>" in page


class Hrefs(HTMLParser):
    """The links, the loaded files and the ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        if tag == "a":
            self.links.append(found.get("href") or "")
        self.loaded += [
            value for name in ("src", "href") if tag in ("script", "link", "img") and (value := found.get(name))
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Hrefs]:
    folder = tmp_path_factory.mktemp("spec") / "site"
    build(folder, ROOT)
    pages = {}
    for path in folder.glob("*.html"):
        pages[path.name] = Hrefs()
        pages[path.name].feed(path.read_text(encoding="utf-8"))
    for style in folder.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?!['\"]?data:)[^)]*//|@import", style.read_text(encoding="utf-8")), (
            style.name
        )
    pages["folder"] = Hrefs()
    pages["folder"].links = [str(folder)]
    return pages


@pytest.mark.slow
def test_the_site_loads_nothing_from_the_network(site: dict[str, Hrefs]) -> None:
    remote = [(name, url) for name, page in site.items() for url in page.loaded if urlparse(url).netloc]
    assert not remote


@pytest.mark.slow
def test_every_link_within_the_site_has_a_target(site: dict[str, Hrefs]) -> None:
    folder = Path(site["folder"].links[0])
    broken = []
    for name in (name for name in site if name != "folder"):
        for url in site[name].links:
            parts = urlparse(url)
            target = parts.path or name
            known = site.get(target)
            fragment = unquote(parts.fragment)
            if parts.netloc or url == "#":
                continue
            if not (folder / target).exists() or (fragment and known is not None and fragment not in known.ids):
                broken.append((name, url))
    assert not broken, broken[:10]


@pytest.mark.slow
def test_every_clause_has_an_anchor_of_its_name(site: dict[str, Hrefs]) -> None:
    anchors = [name for page in site.values() for name in page.ids if name.startswith("clause-") and "." in name]
    assert sorted(anchors) == sorted(f"clause-{label}" for label in clauses())


@pytest.mark.slow
def test_every_clause_operation_and_codebook_is_shown(site: dict[str, Hrefs]) -> None:
    folder = Path(site["folder"].links[0])
    text = (folder / "clauses.html").read_text(encoding="utf-8")
    assert not [label for label in clauses() if f"[{label}]" not in text]
    text = (folder / "rounding_points.html").read_text(encoding="utf-8")
    assert not [name for name in OPERATIONS if name not in text]
    assert "not stated" not in text
    text = (folder / "table_codebooks.html").read_text(encoding="utf-8")
    assert text.count('class="steps"') == len(codebooks()) >= 4


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="holds something else"):
        build(tmp_path, ROOT)
    assert (tmp_path / "precious.txt").exists()


def test_a_site_is_not_built_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for output in (tmp_path / "file", tmp_path / "file" / "site"):
        with pytest.raises(UsageError, match="file is a file"):
            build(output, ROOT)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "x"
