"""Writing a report as pages: a folder with a page for each property, or one file."""

import re
import shutil
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from qloracle_conformance.files import FileError, write_atomically
from qloracle_conformance.pages import overview
from qloracle_conformance.pages.detail import Detail, detail
from qloracle_conformance.pages.rule import rule
from qloracle_conformance.pages.svg import settings
from qloracle_conformance.reading import Run
from qloracle_conformance.summary import ORDER
from qloracle_conformance.usage import UsageError

_STATIC = ("report.css", "report.js")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,180}")
_LINK = re.compile(r"https?://[\w.~:/?#@!$&()*+,;=%-]+[\w/]")
Advance = Callable[[str], None]


@dataclass(frozen=True)
class _Site:
    """What every page needs."""

    run: Run
    environment: Environment
    pages: Mapping[str, str]  # file name of each property's page, by id
    single: bool

    def render(self, template: str, **more: Any) -> str:
        """Return the text of a page."""
        head, backend = self.run.header, self.run.header["backend"]
        title = f"{backend['name']} {backend['version']} on {backend['device']}: specification {head['specification']}"
        return self.environment.get_template(template).render(
            run=self.run, title=title, pages=self.pages, single=self.single, marks=overview.MARKS,
            meanings=overview.MEANINGS, order=ORDER, **more,
        )  # fmt: skip


def write_pages(run: Run, output: Path, witnesses: Path | None, advance: Advance = lambda _: None) -> Path:
    """Write a report to a file, if `output` ends in .html, or to a folder, and return the page to begin with.

    In a file only the first failing property of every stage that does not hold has a section of its own.

    Raises
    ------
    UsageError
        If the folder holds something else than an earlier report.
    FileError
        If a page cannot be written.
    """
    if witnesses is not None and not witnesses.is_dir():
        raise UsageError(f"--witnesses must be a folder, got {witnesses}")
    with settings():
        if output.suffix == ".html":
            return _write_file(run, output, witnesses, advance)
        return _write_folder(run, output, witnesses, advance)


def steps(run: Run, output: Path) -> int:
    """Return how many times `write_pages` will call `advance`."""
    return len(overview.broken(run)) if output.suffix == ".html" else len(run.properties)


def _write_file(run: Run, output: Path, witnesses: Path | None, advance: Advance) -> Path:
    if output.is_dir():
        raise UsageError(f"{output} is a folder")
    lines = [one.line for one in overview.broken(run)]
    failing = [line for line in run.properties if line["status"] not in ("pass", overview.NOT_CLAIMED)]
    site = _Site(run, _environment(), {line["id"]: f"#p{i}" for i, line in enumerate(lines)}, single=True)
    details: list[tuple[str, Detail]] = []
    for number, line in enumerate(lines):
        details.append((f"p{number}", detail(run, line, f"p{number}", witnesses)))
        advance(line["id"])
    text = site.render("index.html.j2", details=details, failing=failing, **_overview(run), **_inlined())
    write_atomically(output, text)
    return output


def _write_folder(run: Run, output: Path, witnesses: Path | None, advance: Advance) -> Path:
    _require_free(output)
    names = page_names([line["id"] for line in run.properties])
    site = _Site(run, _environment(), {key: f"properties/{name}" for key, name in names.items()}, single=False)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in _STATIC:
        write_atomically(partial / name, _static(name))
    write_atomically(partial / "index.html", site.render("index.html.j2", details=[], **_overview(run)))
    write_atomically(partial / "properties.html", site.render("properties.html.j2"))
    for found in map(rule, sorted({line["clause"] for line in run.properties})):
        if found.line:
            write_atomically(partial / "rules" / f"{found.label}.html", site.render("rule.html.j2", rule=found))
    siblings: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in run.properties:
        siblings.setdefault((line["operation"], line["stage"]), []).append(line)
    facts = overview.circumstances(run)
    for line in run.properties:
        text = site.render("property.html.j2", it=detail(run, line, "p", witnesses), names=names, facts=facts,
                           siblings=siblings[line["operation"], line["stage"]])  # fmt: skip
        write_atomically(partial / "properties" / names[line["id"]], text)
        advance(line["id"])
    _put_in_place(partial, output)
    return output / "index.html"


def _require_free(output: Path) -> None:
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"pages need a folder, or a file that ends in .html: {there} is a file")
    if output.exists() and any(output.iterdir()) and not all((output / name).is_file() for name in _STATIC):
        raise UsageError(f"{output} holds something else than an earlier report: give another folder")


def _put_in_place(partial: Path, output: Path) -> None:
    """Let a complete folder take the place of an earlier one."""
    old = output.with_name(output.name + ".old")
    try:
        shutil.rmtree(old, ignore_errors=True)
        if output.exists():
            output.rename(old)
        partial.rename(output)
    except OSError as error:
        raise FileError(f"cannot write {output}: {error.strerror or error}") from error
    shutil.rmtree(old, ignore_errors=True)


def page_names(ids: Sequence[str]) -> dict[str, str]:
    """Return the file name of each property's page: its id, or a number where that is no name for a file."""
    taken = set[str]()
    names = {}
    for number, key in enumerate(ids):
        name = key if _SAFE.fullmatch(key) and key.lower() not in taken else f"number-{number}"
        taken.add(name.lower())
        names[key] = f"{name}.html"
    return names


def _overview(run: Run) -> dict[str, Any]:
    return {
        "facts": overview.circumstances(run),
        "others": overview.other_environment(run),
        "counts": overview.counts(run),
        "matrix": overview.matrix(run),
        "broken": overview.broken(run),
    }


def _static(name: str) -> str:
    return (files("qloracle_conformance.pages") / "static" / name).read_text(encoding="utf-8")


def _inlined() -> dict[str, Any]:
    """Return style and script for a page that has no other files, and what its policy says of the script."""
    style, script = (_static(name) for name in _STATIC)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "digest": digest}  # noqa: S704  # our own files


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("qloracle_conformance.pages"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": lambda n: f"{n:,}", "linked": _linked, "shortened": _shortened}
    return environment


def _linked(text: str) -> Markup:
    """Return a text whose web addresses are links; everything else is escaped."""
    made, end = Markup(), 0
    for found in _LINK.finditer(text):
        made += text[end : found.start()]
        made += Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(found[0])
        end = found.end()
    return made + text[end:]


def _shortened(text: str, length: int = 220) -> str:
    return text if len(text) <= length else f"{text[: length - 2]} …"
