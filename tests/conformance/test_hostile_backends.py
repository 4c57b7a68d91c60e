"""Backends that misbehave on purpose: none takes the suite down, none passes, and the next call is answered."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.execution import Call
from qloracle_conformance.loading import BackendLoadError
from qloracle_conformance.worker import MOST_WORDS, WorkerProcess

from .commands import environment, qloracle, write_module

pytestmark = pytest.mark.slow

HOSTILE = """
    import os, signal, subprocess, sys, threading, time
    from dataclasses import replace

    import numpy as np

    from qloracle_conformance.adapters.reference import backend as reference
    from qloracle_conformance.arrays import host

    def doubled(x):
        return host(x.items * np.float32(2))

    def busy(x):
        while True:
            pass

    def forks(x):
        if os.fork() == 0:
            return host(np.zeros(7, np.float32))  # the copy goes on as if it were the worker
        return doubled(x)

    def leaves_a_child_and_dies(x):
        if os.fork() == 0:
            time.sleep(3600)  # with the worker's end of the pipe
        os._exit(9)

    def closes_everything(x):
        os.closerange(3, 256)
        time.sleep(3600)

    def stops_itself(x):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGSTOP)).start()
        return doubled(x)

    def writes_to_the_pipe(x):
        os.write(int(sys.argv[1]), b"\\x00\\x00\\x00\\x04junk")
        return doubled(x)

    def claims_a_long_answer(x):
        os.write(int(sys.argv[1]), b"\\x7f\\xff\\xff\\xff")
        return doubled(x)

    def answers_twice(x):
        from multiprocessing.connection import Connection
        from qloracle_conformance.execution import Outcome
        Connection(os.dup(int(sys.argv[1]))).send((0, Outcome(outputs=(doubled(x),))))
        return doubled(x)

    def prints_for_ever(x):
        os.write(1, b"a kernel's debugging output\\n" * 100000)
        return doubled(x)

    def returns_gigabytes(x):
        return host(np.zeros(1 << 25, np.float32))

    def changes_the_world(x):
        np.seterr(all="raise")
        np.random.seed(0)
        os.chdir("/")
        os.environ["OMP_NUM_THREADS"] = "77"
        sys.setrecursionlimit(60)
        sys.stdout = sys.stderr = None
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return doubled(x)

    def patches_numpy(x):
        np.array_equal = lambda *a, **k: True
        np.float32 = np.float64
        np.empty = None
        return host(x.items * 3)

    class Base(BaseException):
        pass

    def raises(error):
        def function(x):
            raise error
        return function

    ops = {name: f for name, f in globals().items() if callable(f) and getattr(f, "__module__", "") == __name__}
    ops |= {"raises_base": raises(Base("no")), "raises_exit": raises(SystemExit(0)),
            "raises_generator_exit": raises(GeneratorExit()), "raises_keyboard": raises(KeyboardInterrupt()),
            "raises_memory": raises(MemoryError("3 GiB"))}
    ops["pid"] = lambda x: host(np.array([os.getpid()], np.int32))
    backend = replace(reference(), name="hostile", ops=ops)
"""
X = host(np.array([1.5, -3.0], np.float32))
LARGE = host(np.zeros(1 << 21, np.float32))  # more than a pipe holds


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One worker for all: what a test does to it is over with the next call."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment(folder)["PYTHONPATH"])
        process = WorkerProcess(write_module(folder, "hostile", HOSTILE), timeout=3.0)
        yield process
        process.close()


def call(function: str, x: HostArray = X) -> Call:
    return Call(function, {"x": x}, {}, {})


def require_next_call_is_answered(worker: WorkerProcess) -> None:
    outcome = worker.run(call("doubled"))
    assert outcome.failure == "", f"the call after it failed too: {outcome.failure}: {outcome.message}"
    assert outcome.outputs[0].items.tolist() == [3.0, -6.0]


@pytest.mark.parametrize(
    ("function", "failure", "message"),
    [
        ("busy", "timeout", "no answer within 3 s"),
        ("leaves_a_child_and_dies", "crashed", "the worker process died: exit code 9"),
        ("closes_everything", "crashed", "the worker process closed its end and went on; it was ended"),
        ("writes_to_the_pipe", "crashed", "the worker wrote no answer: "),
        ("claims_a_long_answer", "timeout", "no answer within 3 s"),
        ("answers_twice", "crashed", "the worker answered another call than the one that was sent"),
        ("returns_gigabytes", "output", "134217728 bytes were returned for inputs of 8, at most 67108864 can be"),
        ("raises_base", "crashed", "the worker process died: exit code 1"),
        ("raises_exit", "crashed", "the worker process died: exit code 0"),
        ("raises_generator_exit", "crashed", "the worker process died: exit code 1"),
        ("raises_keyboard", "crashed", "the worker process died: signal SIGINT"),
        ("raises_memory", "raised", "MemoryError: 3 GiB"),
    ],
)
def test_what_is_no_answer_is_a_failure_that_says_what_came_instead(
    worker: WorkerProcess, function: str, failure: str, message: str
) -> None:
    outcome = worker.run(call(function))
    assert (outcome.failure, outcome.message[: len(message)]) == (failure, message)
    assert outcome.outputs == ()
    require_next_call_is_answered(worker)


def test_a_copy_that_the_backend_makes_of_its_process_answers_nothing(worker: WorkerProcess) -> None:
    for _ in range(3):
        outcome = worker.run(call("forks"))
        assert outcome.outputs[0].items.tolist() == [3.0, -6.0]
    require_next_call_is_answered(worker)


def test_a_process_that_takes_no_call_does_not_block_the_suite(worker: WorkerProcess) -> None:
    assert worker.run(call("stops_itself")).failure == ""
    time.sleep(0.5)
    outcome = worker.run(call("doubled", LARGE))
    assert (outcome.failure, outcome.message) == ("timeout", "no answer within 3 s; the worker was ended")
    require_next_call_is_answered(worker)


def test_what_a_backend_starts_ends_with_it(worker: WorkerProcess) -> None:
    worker.run(call("leaves_a_child_and_dies"))
    pid = int(worker.run(call("pid")).outputs[0].items[0])
    assert os.getpgid(pid) == pid, "the worker must lead a group, which is ended as a whole"
    assert os.getpgid(pid) != os.getpgid(0)


def test_what_a_backend_prints_does_not_fill_the_disk(worker: WorkerProcess) -> None:
    for _ in range(4):
        assert worker.run(call("prints_for_ever")).failure == ""
    require_next_call_is_answered(worker)
    assert os.fstat(worker._log.fileno()).st_size < 2 * MOST_WORDS


def test_global_state_that_a_backend_changes_stays_in_its_process(worker: WorkerProcess) -> None:
    before = (Path.cwd(), os.environ.get("OMP_NUM_THREADS"), np.geterr())
    assert worker.run(call("changes_the_world")).failure == ""
    assert worker.run(call("changes_the_world")).failure == ""
    assert (Path.cwd(), os.environ.get("OMP_NUM_THREADS"), np.geterr()) == before
    worker.close()


def test_a_backend_that_patches_numpy_is_judged_by_the_suite_s_own(worker: WorkerProcess) -> None:
    outcome = worker.run(call("patches_numpy"))
    if not outcome.failure:
        assert outcome.outputs[0].items.tolist() == [4.5, -9.0]
    assert np.array_equal([1], [2]) is False
    worker.close()
    require_next_call_is_answered(worker)


BROKEN = """
    from dataclasses import replace

    import numpy as np

    from qloracle_conformance.adapters.reference import OPS, backend as reference
    from qloracle_conformance.arrays import host

    def nan(**arguments):
        right = OPS["dequantize_blockwise"](**arguments)
        return host(np.full(right.shape, np.nan, np.float32)) if right.dtype == "float32" else right

    def garbage(**arguments):
        data, absmax = OPS["quantize_blockwise"](**arguments)
        return host(np.frombuffer(np.random.default_rng().bytes(data.items.size), np.uint8)), absmax

    def one_too_many(codes, *, pad_code):
        return OPS["pack_4bit"](codes, pad_code=pad_code), codes

    def shape(packed, *, size):
        right = OPS["unpack_4bit"](packed, size=size)
        return host(right.items[np.newaxis])

    def dtype(x, *, block_size):
        right = OPS["block_absmax"](x, block_size=block_size)
        return host(right.items.astype(np.float64))

    def itself(acc, **rest):
        return acc

    def missing(absmax, *, codebook):
        return OPS["quantize_absmax"](absmax, codebook=codebook)[:2]

    calls = [0]
    def fickle(a, b):
        calls[0] += 1
        right = OPS["int8_matmul"](a, b)
        return host(right.items + np.int32(calls[0] % 7 == 0))

    def overwrites(x, *, granularity, block_size):
        result = OPS["quantize_int8"](x, granularity=granularity, block_size=block_size)
        x.items[...] = 0
        return result

    def patched(*, absmax_codes, nested_absmax, offset, codebook):
        np.array_equal = lambda *a, **k: True
        return absmax_codes

    functions = {
        "dequantize_blockwise": nan, "quantize_blockwise": garbage, "pack_4bit": one_too_many, "unpack_4bit": shape,
        "block_absmax": dtype, "scale_int8_matmul": itself, "quantize_absmax": missing, "int8_matmul": fickle,
        "quantize_int8": overwrites, "dequantize_absmax": patched,
    }
    names = ("nf4.dequantize", "nf4.quantize", "packing.pack", "packing.unpack", "blocks.absmax", "int8.scale",
             "absmax.quantize", "int8.matmul", "int8_row.quantize", "absmax.dequantize", "float16.decode")
    claims = tuple(
        replace(claim, features=("bias",)) for claim in reference().claims if claim.operation in names
    )
    backend = replace(reference(), name="broken", ops={**OPS, **functions}, claims=claims)
"""
STAGES = {
    "nf4.dequantize": {"values"},
    "nf4.quantize": {"packing", "codes", "repeat"},  # other garbage every time
    "packing.pack": {"packed"},
    "packing.unpack": {"codes"},
    "blocks.absmax": {"absmax"},
    "int8.scale": {"y"},
    "absmax.quantize": {"offset"},
    "int8.matmul": {"acc", "repeat"},
    "int8_row.quantize": {"inputs"},
    "absmax.dequantize": {"absmax"},
    "float16.decode": set[str](),
}


def test_a_backend_broken_in_ten_ways_ends_with_a_whole_report_that_names_each_and_nothing_else(
    tmp_path: Path,
) -> None:
    name = write_module(tmp_path, "broken", BROKEN)
    arguments = ("--profile", "smoke", "--report", "r.jsonl", "--timeout", "20")
    ended = qloracle(tmp_path, "check", "--backend", name, *arguments)
    assert ended.code == 1, str(ended)
    assert "Traceback" not in ended.out + ended.err, str(ended)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert lines[-1]["type"] == "footer"
    properties = [line for line in lines if line["type"] == "property"]
    for operation, stages in STAGES.items():
        own = [p for p in properties if p["operation"] == operation]
        assert own, f"{operation} was not judged"
        broken = {p["stage"] for p in own if p["status"] in ("fail", "differs")}
        # Writing into an input that is read-only raises, which is a verdict too.
        errors = {p["stage"] for p in own if p["status"] == "error" and "read-only" not in p["message"]}
        if operation == "packing.pack":  # two arrays where one is specified: there is nothing to judge
            assert {p["status"] for p in own} == {"error"}, own
            continue
        assert errors == set(), f"{operation}: {errors}"
        assert broken <= stages, f"{operation}: {broken}"
        refused = [p for p in own if p["status"] == "error"]
        assert bool(broken or refused) == bool(stages), f"{operation}: {broken or 'passed'}"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("name=3", "name must be a text, got 3"),
        ("version=None", "version must be a text, got None"),
        ("place=None", "place must be a function, got None"),
        ("ops=[1]", "ops must be a mapping, got [1]"),
        ("ops={'encode': 1}", "ops['encode'] must be a function by its name, got 1"),
        ("claims=[]", "claims must be a tuple, got []"),
        ("claims=('nf4.quantize',)", "claims must be Claim records, got 'nf4.quantize'"),
        ("environment={'device': 1}", "environment['device'] must be a text by its name, got 1"),
    ],
)
def test_a_record_that_no_report_could_name_is_refused_with_the_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, message: str
) -> None:
    from qloracle_conformance.loading import load_backend

    source = f"""
        from dataclasses import replace
        from qloracle_conformance.adapters.reference import backend as reference
        def backend(device):
            return replace(reference(), {changed})
    """
    module = f"record_{abs(hash(changed))}"
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendLoadError) as caught:
        load_backend(write_module(tmp_path, module, source), "cpu")
    assert message in str(caught.value)
