"""Work on several processes: in order or as it comes, and never longer than the process that asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qloracle_conformance.pools import results

from .commands import environment

ENDLESS = """
import os, time
from pathlib import Path
from qloracle_conformance.pools import results

def wait(number):
    Path(f"worker{number}").write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    list(results(wait, [(1,), (2,)], 2))
"""
PATIENCE = 120.0


def until(condition: object, what: str) -> None:
    """Wait until a condition holds."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {PATIENCE} s"
        time.sleep(0.05)


def ended(process: int) -> bool:
    """Whether a process is gone; one that nobody waits for, a zombie, is."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_jobs(processes: int) -> None:
    jobs = [(range(10_000_000),), (range(2),), (range(3),), (range(4),)]  # the first takes longest
    assert list(results(sum, jobs, processes)) == [49_999_995_000_000, 1, 3, 6]
    assert sorted(results(sum, jobs, processes, in_order=False)) == [1, 3, 6, 49_999_995_000_000]


def test_an_error_in_a_process_is_raised_here() -> None:
    with pytest.raises(ValueError, match="sleep length must be non-negative"):
        list(results(time.sleep, [(0.0,), (-1.0,)], 2))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="NOT RUN: needs /proc to see processes end")
def test_processes_end_with_the_one_that_asked_even_if_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    asking = subprocess.Popen([sys.executable, "endless.py"], cwd=tmp_path, env=environment())
    told = [tmp_path / "worker1", tmp_path / "worker2"]
    until(lambda: all(path.exists() and path.read_text() for path in told), "two processes began")
    workers = [int(path.read_text()) for path in told]
    assert len(set(workers)) == 2
    os.kill(asking.pid, signal.SIGKILL)
    asking.wait()
    until(lambda: all(ended(worker) for worker in workers), "both processes ended")
