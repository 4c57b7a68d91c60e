"""Running the tasks of a session on several processes: pytest-xdist hands them out, each process has its own backend.

The controlling process loads this module as a pytest plugin too, but runs nothing: it receives finished verdicts.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from qloracle_conformance.engine import ISOLATED, Session, SuiteError, collect_tasks, deadline, isolated
from qloracle_conformance.plan import make_plan
from qloracle_conformance.settings import Settings
from qloracle_conformance.shards import parse_shard
from qloracle_conformance.worker import WorkerProcess

VARIABLE = "QLORACLE_PARALLEL_SETTINGS"
KEY = "qloracle"


def encode_settings(settings: Settings) -> str:
    """Return settings as text that another process can read."""
    return json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()})


def decode_settings(text: str) -> Settings:
    """Return the settings of `encode_settings`."""
    content: dict[str, Any] = json.loads(text)
    paths = {f.name for f in fields(Settings) if "Path" in str(f.type)}
    typed: dict[str, Any] = {k: Path(v) if k in paths and v is not None else v for k, v in content.items()}
    return Settings(**typed)


class Part:
    """The plugin of one process: it has its own backend and runs the tasks that it is handed."""

    def __init__(self, settings: Settings) -> None:
        """Start the backend and make the plan, which is the same in every process."""
        started = time.perf_counter()
        self._limits = threadpool_limits(limits=1)
        self.worker = WorkerProcess(settings.backend, settings.device, settings.timeout)
        plan = make_plan(
            self.worker.info, settings.profile, settings.seed, settings.only, settings.stage, settings.explore
        )
        self.tasks = parse_shard(settings.shard).of(plan.tasks) if settings.shard else plan.tasks
        self.lines: list[Mapping[str, Any]] = []
        self.session = Session(self.worker, settings.backend, settings.device, plan, settings.witnesses, self._keep,
                               deadline=deadline(settings.max_time, started))  # fmt: skip

    def pytest_collection(self, session: pytest.Session) -> bool:
        """Make one item of each task."""
        return collect_tasks(session, self.tasks, self.session)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Send the verdicts along with the item's report."""
        self.lines.clear()
        yield
        item.user_properties.append((KEY, json.dumps(self.lines)))

    def _keep(self, _: str, lines: Sequence[Mapping[str, Any]]) -> None:
        self.lines += lines

    def pytest_sessionfinish(self) -> None:
        """Stop the backend."""
        self.worker.close()
        self._limits.restore_original_limits()


class Controller:
    """The plugin of the controlling process: it receives verdicts, in whatever order they come."""

    def __init__(self, on_lines: Callable[[str, Sequence[Mapping[str, Any]]], None]) -> None:
        """Keep the receiver."""
        self.on_lines = on_lines
        self.received = 0
        self.errors: list[str] = []
        self.interrupted = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the verdicts of a finished task; what has none is a fault of the suite."""
        if report.when != "call":
            if report.failed:
                self.errors.append(report.longreprtext)
            return
        sent = [value for key, value in report.user_properties if key == KEY]
        if not sent:
            self.errors.append(report.longreprtext or f"{report.nodeid} sent no verdict")
            return
        self.received += 1
        self.on_lines(report.nodeid.rpartition("::")[2], json.loads(str(sent[0])))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what went wrong before the first task."""
        if report.failed:
            self.errors.append(report.longreprtext)

    def pytest_testnodedown(self, error: object) -> None:
        """Keep how a process ended that should not have."""
        if error:
            self.errors.append(f"a process of the suite ended: {error}")

    def pytest_keyboard_interrupt(self) -> None:
        """Remember that the user stopped the run."""
        self.interrupted = True


def pytest_configure(config: pytest.Config) -> None:
    """Register the part that runs tasks, in the processes that pytest-xdist starts."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Part(decode_settings(os.environ[VARIABLE])))


def run_parallel(
    settings: Settings, expected: int, on_lines: Callable[[str, Sequence[Mapping[str, Any]]], None]
) -> None:
    """Run the tasks of a plan on `settings.jobs` processes.

    Raises
    ------
    SuiteError
        If a process of the suite fails, or tasks are left without a verdict.
    KeyboardInterrupt
        If the user stops the run.
    """
    controller = Controller(on_lines)
    os.environ[VARIABLE] = encode_settings(settings)
    try:
        with isolated(), tempfile.TemporaryDirectory() as folder:
            plugins = ["-p", "xdist.plugin", "-p", __name__, "-n", str(settings.jobs)]
            code = pytest.main([*ISOLATED, "--rootdir", folder, *plugins, folder], plugins=[controller])
    finally:
        del os.environ[VARIABLE]
    if controller.interrupted:
        raise KeyboardInterrupt
    if controller.errors:
        raise SuiteError(" ".join(controller.errors[0].split())[-500:])
    if controller.received != expected:
        raise SuiteError(f"{controller.received} of {expected} tasks were judged; pytest ended with {code!r}")
