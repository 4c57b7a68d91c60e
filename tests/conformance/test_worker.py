"""The worker process: whatever the backend does to it, the next call is answered."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qloracle_conformance.arrays import host
from qloracle_conformance.execution import Call
from qloracle_conformance.loading import BackendLoadError
from qloracle_conformance.worker import WorkerProcess

from .commands import environment, write_module

ODD = """
    import ctypes, os, sys, time
    from dataclasses import replace

    import numpy as np

    from qloracle_conformance.adapters.reference import backend as reference
    from qloracle_conformance.arrays import host

    def doubled(x):
        return host(x.items * np.float32(2))

    def hangs(x):
        time.sleep(3600)

    def prints(x):
        print("a kernel's debugging output " * 10000, flush=True)
        os.write(1, b"and some past Python's own buffers" * 10000)
        return doubled(x)

    def dies_with_a_word(x):
        sys.stderr.write("CUDA error: an illegal memory access was encountered")
        sys.stderr.flush()
        os._exit(3)

    def reads_its_input(x):
        return host(np.frombuffer(sys.stdin.buffer.read() + b"....", np.uint8))

    def pid(x):
        return host(np.array([os.getpid()], np.int32))

    ops = {
        "doubled": doubled, "hangs": hangs, "prints": prints, "pid": pid, "reads_its_input": reads_its_input,
        "segfaults": lambda x: ctypes.string_at(0),
        "exits": lambda x: os._exit(0),
        "leaves": lambda x: sys.exit(5),
        "aborts": lambda x: os.abort(),
        "interrupts": lambda x: (_ for _ in ()).throw(KeyboardInterrupt()),
        "dies_with_a_word": dies_with_a_word,
        "raises": lambda x: 1 / 0,
    }
    backend = replace(reference(), name="odd", ops=ops)
"""
X = host(np.array([1.5, -3.0], np.float32))


@pytest.fixture
def imports_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules the worker can import."""
    monkeypatch.setenv("PYTHONPATH", environment(tmp_path)["PYTHONPATH"])
    return tmp_path


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One worker for all: what a test does to it is over with the next call."""
    folder = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment(folder)["PYTHONPATH"])
        process = WorkerProcess(write_module(folder, "odd", ODD), timeout=1.0)
        yield process
        process.close()


def call(function: str) -> Call:
    return Call(function, {"x": X}, {}, {})


def require_next_call_is_answered(worker: WorkerProcess) -> None:
    outcome = worker.run(call("doubled"))
    assert outcome.failure == "", f"the call after the fault failed too: {outcome.failure}: {outcome.message}"
    assert outcome.outputs[0].items.tolist() == [3.0, -6.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("segfaults", "the worker process died: signal SIGSEGV"),
        ("aborts", "the worker process died: signal SIGABRT"),
        ("exits", "the worker process died: exit code 0"),
        ("leaves", "the worker process died: exit code 5"),
        ("dies_with_a_word", "the worker process died: exit code 3"),
        ("interrupts", "the worker process died: signal SIGINT"),
    ],
)
def test_a_backend_that_ends_the_process_fails_that_call_alone(
    worker: WorkerProcess, function: str, message: str
) -> None:
    outcome = worker.run(call(function))
    assert outcome.failure == "crashed"
    assert outcome.message.startswith(message), outcome.message
    require_next_call_is_answered(worker)


def test_a_backend_that_hangs_is_ended_at_the_time_limit(worker: WorkerProcess) -> None:
    outcome = worker.run(call("hangs"))
    assert (outcome.failure, outcome.message) == ("timeout", "no answer within 1 s; the worker was ended")
    require_next_call_is_answered(worker)


def test_a_backend_that_raises_keeps_its_process(worker: WorkerProcess) -> None:
    before = worker.run(call("pid")).outputs[0].items[0]
    outcome = worker.run(call("raises"))
    assert (outcome.failure, outcome.message) == ("raised", "ZeroDivisionError: division by zero")
    assert worker.run(call("pid")).outputs[0].items[0] == before


def test_what_a_backend_prints_goes_nowhere_near_the_answer(
    worker: WorkerProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = worker.run(call("prints"))
    assert outcome.outputs[0].items.tolist() == [3.0, -6.0]
    assert capfd.readouterr() == ("", "")


def test_a_backend_that_reads_standard_input_finds_it_empty(worker: WorkerProcess) -> None:
    assert worker.run(call("reads_its_input")).outputs[0].items.tobytes() == b"...."


@pytest.mark.parametrize("function", ["doubled", "raises", "segfaults"])
def test_what_is_to_be_done_meanwhile_is_done_once_whatever_becomes_of_the_call(
    worker: WorkerProcess, function: str
) -> None:
    done: list[int] = []
    worker.run(call(function), lambda: done.append(0))
    assert done == [0]


def test_the_last_words_of_a_crash_are_kept(worker: WorkerProcess) -> None:
    assert "an illegal memory access" in worker.run(call("dies_with_a_word")).details


def test_the_worker_runs_in_a_process_of_its_own_that_ends_when_closed(worker: WorkerProcess) -> None:
    pid = int(worker.run(call("pid")).outputs[0].items[0])
    assert pid != os.getpid()
    os.kill(pid, 0)  # it is there
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_backend_that_cannot_be_started_a_second_time_fails_the_call_and_not_the_run(imports_from: Path) -> None:
    source = """
        import os, pathlib
        from dataclasses import replace
        from qloracle_conformance.adapters.reference import backend as reference
        if pathlib.Path(__file__).with_name("used").exists():
            raise RuntimeError("the device is lost")
        pathlib.Path(__file__).with_name("used").touch()
        backend = replace(reference(), ops={"exits": lambda x: os._exit(1)})
    """
    process = WorkerProcess(write_module(imports_from, "once", source), timeout=10.0)
    try:
        assert process.run(call("exits")).failure == "crashed"
        second = process.run(call("exits"))
        assert second.failure == "crashed"
        assert "cannot be started again" in second.message
        assert "the device is lost" in second.message
    finally:
        process.close()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nonesuch_module", "needs the module 'nonesuch_module'"),
        ("1 / 0", "failed: ZeroDivisionError: division by zero"),
        ("def f(:", "failed: SyntaxError: invalid syntax"),
        ("import os; os._exit(3)", "the worker process died: exit code 3 while loading; it wrote nothing"),
        ("import sys; sys.exit('no licence')", "the worker process died: exit code 1 while loading; no licence"),
        ("other = 1", "has no attribute 'backend'"),
        ("backend = 3", "must be a Backend, or return one; got int"),
        ("backend = lambda device: None", "must be a Backend, or return one; got NoneType"),
        ("def backend(device): raise OSError('no such ' + device)", "cannot start on device 'cpu': no such cpu"),
    ],
)
def test_a_backend_that_cannot_be_loaded_is_an_error_that_says_why(
    imports_from: Path, source: str, message: str
) -> None:
    with pytest.raises(BackendLoadError) as caught:
        WorkerProcess(write_module(imports_from, "faulty", source))
    assert message in str(caught.value)


def test_threads_are_pinned_in_the_worker(imports_from: Path) -> None:
    source = """
        import os
        from dataclasses import replace
        from qloracle_conformance.adapters.reference import backend as reference
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        backend = replace(reference(), environment={name: os.environ[name] for name in names})
    """
    process = WorkerProcess(write_module(imports_from, "threads", source))
    process.close()
    assert set(process.info.environment.values()) == {"2"}
