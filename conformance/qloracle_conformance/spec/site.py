"""Building the specification as one static site that needs no network: pages as reST, then Sphinx with Furo."""

import io
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

import qloracle
from qloracle_conformance.files import FileError
from qloracle_conformance.spec import overviews, tables
from qloracle_conformance.spec.changelog import changelog_page
from qloracle_conformance.spec.clauses import clauses, members, reference_modules
from qloracle_conformance.spec.contents import FURTHER, PAGES, modules_of
from qloracle_conformance.spec.coverage import coverage
from qloracle_conformance.spec.differences import differences_page
from qloracle_conformance.spec.markup import Links
from qloracle_conformance.spec.rules import rules_page
from qloracle_conformance.spec.start import start_page
from qloracle_conformance.usage import UsageError


def links() -> Links:
    """Return everything that a text may link to: clauses, and public names, short where they are unambiguous."""
    found: dict[str, list[str]] = {}
    for module in reference_modules():
        short = module.__name__.removeprefix("qloracle.")
        found.setdefault(short, []).append(f":ref:`{short} <module-{short}>`")
        for name, thing in vars(module).items():
            home = getattr(thing, "__module__", "")
            if name.startswith("_") or not home.startswith("qloracle.") or name not in members(sys.modules[home]):
                continue
            own = [name, f"{module.__name__}.{name}"] if home == module.__name__ else []  # else imported here
            for known in (*own, f"{short}.{name}"):
                found.setdefault(known, []).append(f":py:obj:`{name} <{home}.{name}>`")
    return Links(frozenset(clauses()), {name: roles[0] for name, roles in found.items() if len(roles) == 1})


def sources(root: Path) -> dict[str, str]:
    """Return the reST of every page, by file name.

    Raises
    ------
    FileError
        If a committed report that a page shows cannot be read.
    """
    linked, covered = links(), coverage(root)
    by_clause = {c.clause: c for c in covered}
    pages = {page.name: rules_page(page, linked, by_clause) for page in (*PAGES, FURTHER) if modules_of(page)}
    pages |= {
        "clauses": overviews.index_page(linked),
        "rounding_points": overviews.rounding_page(linked),
        "table_formats": tables.formats_page(linked),
        "table_codebooks": tables.codebooks_page(linked),
        "coverage": overviews.coverage_page(linked, covered),
        "differences": differences_page(linked, root),
        "changelog": changelog_page(linked),
    }
    pages["index"] = start_page(linked, [page for page in (*PAGES, FURTHER) if page.name in pages])
    return {f"{name}.rst": "\n".join(lines) + "\n" for name, lines in pages.items()}


def settings(output: Path) -> Mapping[str, object]:
    """Return the configuration of Sphinx."""
    return {
        "project": "qloracle",
        "html_title": f"qloracle {qloracle.SPECIFICATION_VERSION}",
        "html_theme": "furo",
        "html_static_path": [str(output)],
        "html_css_files": ["specification.css"],
        "html_show_sphinx": False,
        "html_show_copyright": False,
        "html_copy_source": False,
        "html_show_sourcelink": False,
        "html_use_index": True,
        "html_last_updated_fmt": None,
        "html_theme_options": {"footer_icons": [], "top_of_page_buttons": []},
        "smartquotes": False,
        "add_module_names": False,
        "toc_object_entries_show_parents": "hide",
        "maximum_signature_line_length": 88,
        "python_use_unqualified_type_names": True,
        "highlight_language": "text",
        "suppress_warnings": [],
    }


def build(output: Path, root: Path) -> int:
    """Build the site into a folder and return the number of its pages; a folder of an earlier build is replaced.

    Raises
    ------
    UsageError
        If Sphinx is not installed, or the folder is a file or holds something else.
    FileError
        If Sphinx warns: nothing is published that does not hold together.
    """
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"the site needs a folder: {there} is a file")
    try:
        from sphinx.application import Sphinx
        from sphinx.errors import SphinxError
        from sphinx.util.docutils import docutils_namespace
    except ModuleNotFoundError as error:
        raise UsageError(f"this command needs the module {error.name!r}: pip install 'qloracle[spec]'") from error
    if output.exists() and any(output.iterdir()) and not (output / "searchindex.js").exists():
        raise UsageError(f"{output} holds something else than an earlier build: give another folder")
    pages = sources(root)
    warnings = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, as_file(files("qloracle_conformance.spec") / "static") as static:
        source = Path(folder) / "source"
        source.mkdir()
        for name, text in pages.items():
            (source / name).write_text(text, encoding="utf-8")
        try:
            with docutils_namespace():
                app = Sphinx(
                    str(source), None, Path(folder) / "html", Path(folder) / "doctrees", "html",
                    confoverrides=dict(settings(static)), status=None, warning=warnings, freshenv=True,
                )  # fmt: skip
                app.build()
        except SphinxError as error:
            raise FileError(f"the site cannot be built: {error}") from error
        if warnings.getvalue():
            found = [line for line in warnings.getvalue().splitlines() if "WARNING" in line or "ERROR" in line]
            raise FileError(f"the site has {len(found)} warnings: {'; '.join(found[:3])}")
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(Path(folder) / "html", output, ignore=shutil.ignore_patterns(".buildinfo*", "objects.inv"))
    return len(pages)
