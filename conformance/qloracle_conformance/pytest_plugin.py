"""The suite inside your own pytest run: one item for each property of your backend.

Put one line into the conftest.py of your tests::

    pytest_plugins = ["qloracle_conformance.pytest_plugin"]

and name the backend, ``pytest --qloracle-backend=mypkg.adapter:backend``, or once and for all in the configuration of
pytest: ``qloracle_backend = "mypkg.adapter:backend"``. The items belong to that conftest.py: ``pytest tests`` runs
them where it lies in ``tests``, ``pytest tests/conftest.py`` runs nothing else, ``pytest tests/test_mine.py`` not one.
Nothing is loaded in anybody's environment but by that line.
"""

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from threadpoolctl import threadpool_limits

from qloracle.errors import QloracleError
from qloracle_conformance.deviations import Replayed, read_deviations, replay_deviations, with_known
from qloracle_conformance.engine import Session
from qloracle_conformance.plan import Plan, make_plan
from qloracle_conformance.shipped import deviations_path
from qloracle_conformance.table import print_findings
from qloracle_conformance.task import Task
from qloracle_conformance.verdict_line import property_line
from qloracle_conformance.verdicts import PropertyResult, fresh_state
from qloracle_conformance.worker import WorkerProcess

NAME = "qloracle_conformance.pytest_plugin"
OPTIONS: dict[str, tuple[str, str]] = {  # name → default, help
    "backend": ("", "backend to judge: a short name or module:attribute; without one nothing is collected"),
    "device": ("cpu", "device that the backend runs on"),
    "only": ("", "property ids to collect, a shell pattern such as 'nf4.*'"),
    "profile": ("default", "size of the run: smoke, default or thorough"),
    "seed": ("0", "seed of the cases"),
    "timeout": ("60", "seconds that one call of the backend may take"),
    "witnesses": ("witnesses", "folder for the files of failing cases"),
    "deviations": ("", "TOML file of known deviations: they are expected to fail"),
}
_CLOSING = pytest.StashKey[list[WorkerProcess]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add every option to the command line, and under the same name to the configuration file."""
    group = parser.getgroup("qloracle")
    for name, (default, text) in OPTIONS.items():
        group.addoption(f"--qloracle-{name}", default=None, help=text)
        parser.addini(f"qloracle_{name}", text, default=default)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks of the items known."""
    config.addinivalue_line("markers", "qloracle: a property that qloracle judges")
    config.addinivalue_line("markers", "xdist_group(name): properties that are judged by the same calls")
    config.stash[_CLOSING] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the backend."""
    for worker in config.stash.get(_CLOSING, []):
        worker.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the conftest.py that names this plugin, if there is a backend to judge."""
    if file_path.name != "conftest.py" or not chosen(parent.config, "backend"):
        return None
    plugins = parent.config.pluginmanager.get_plugins()
    naming = (p for p in plugins if NAME in _names(getattr(p, "pytest_plugins", ())))
    if not any(Path(str(getattr(plugin, "__file__", ""))) == file_path for plugin in naming):
        return None
    return ConformanceFile.from_parent(parent, path=file_path)


def _names(plugins: object) -> Sequence[str]:
    return [plugins] if isinstance(plugins, str) else list(plugins) if isinstance(plugins, list | tuple) else []


def chosen(config: pytest.Config, name: str) -> str:
    """Return an option: that of the command line, else that of the configuration."""
    given = config.getoption(f"qloracle_{name}")
    return str(config.getini(f"qloracle_{name}") if given is None else given)


class ConformanceFile(pytest.File):
    """The properties of one backend."""

    session_of_suite: Session
    known: Mapping[str, Replayed]
    judged: dict[str, Mapping[str, Any]]

    def collect(self) -> Iterable[pytest.Item]:
        """Start the backend, ask what it claims, and make one item of each property of that."""
        try:
            plan = self._begin()
        except QloracleError as error:
            raise self.CollectError(f"qloracle: {error}") from error
        self.judged = {}
        for name in plan.absent:
            yield PropertyItem.from_parent(self, name=f"{name}.claim.absent", task=None)
        for task in plan.tasks:
            for stage in fresh_state(task).tallies:
                name = f"{task.operation.name}.{stage}.{task.family}"
                if name in plan.properties:
                    yield PropertyItem.from_parent(self, name=name, task=task)

    def _begin(self) -> Plan:
        config = self.config
        seed, timeout = (_number(config, name) for name in ("seed", "timeout"))
        worker = WorkerProcess(chosen(config, "backend"), chosen(config, "device"), timeout)
        config.stash[_CLOSING].append(worker)
        plan = make_plan(worker.info, chosen(config, "profile"), int(seed), chosen(config, "only") or None)
        deviations = chosen(config, "deviations")
        listed = []
        if deviations:
            path = deviations_path(Path(deviations), worker.info, chosen(config, "device"))
            listed = read_deviations(path, worker.info.name)
        self.known = replay_deviations(listed, worker, plan.properties)
        folder = Path(chosen(config, "witnesses"))
        self.session_of_suite = Session(
            worker, chosen(config, "backend"), chosen(config, "device"), plan, folder, lambda *_: None
        )
        return plan

    def line_of(self, task: Task, name: str) -> Mapping[str, Any]:
        """Return the verdict on a property; the first one of its task judges all of them."""
        if name not in self.judged:
            with threadpool_limits(limits=1):  # as `qloracle check`: the sums of the oracles, the same anywhere
                found: list[PropertyResult] = self.session_of_suite.execute(task)
            self.judged |= {result.id: with_known(property_line(result), self.known) for result in found}
        return self.judged[name]


def _number(config: pytest.Config, name: str) -> float:
    text = chosen(config, name)
    try:
        return float(text)
    except ValueError:
        raise pytest.UsageError(f"qloracle: {name} must be a number, got {text!r}") from None


class BrokenPropertyError(Exception):
    """A claim does not hold; the text is the report's finding."""


class PropertyItem(pytest.Item):
    """One property."""

    def __init__(self, *, task: Task | None, **rest: Any) -> None:
        """Keep the task that judges the property; None where an operation is claimed and not there."""
        super().__init__(**rest)
        self.task = task
        self.add_marker("qloracle")
        if task is not None:
            self.add_marker(pytest.mark.xdist_group(f"{task.operation.name}.{task.family}"))

    def runtest(self) -> None:
        """Judge the property: what is neither kept nor broken is skipped with its status."""
        if self.task is None:
            raise BrokenPropertyError(f"{self.name}: claimed, but the backend has no such function")
        parent = self.parent
        if not isinstance(parent, ConformanceFile):
            raise TypeError(f"{self.name} belongs to {parent!r}")
        line = parent.line_of(self.task, self.name)
        if line["status"] == "known":
            pytest.xfail(f"known: {line['message']}")
        if line["status"] in ("blocked", "not-claimed", "not-judged"):
            pytest.skip(f"{line['status']}: {line['message']}")
        if line["status"] != "pass":
            raise BrokenPropertyError(told(line))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the finding without a traceback of the suite."""
        if isinstance(excinfo.value, BrokenPropertyError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Name the property as the suite does."""
        return self.path, None, self.name


def told(line: Mapping[str, Any]) -> str:
    """Return what the report says of a property that does not hold."""
    console = Console(file=StringIO(), width=120, highlight=False, color_system=None)
    print_findings(console, [line])
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(row.rstrip() for row in text.strip().splitlines())
