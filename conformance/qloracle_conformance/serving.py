"""The other side of the worker process: load a backend, answer calls, and leave nothing to the suite but answers."""

import contextlib
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from qloracle_conformance.backend import describe
from qloracle_conformance.execution import Call, Outcome, run_call
from qloracle_conformance.loading import BackendLoadError, load_backend

MOST_OUTPUT = 1 << 26  # bytes that a call may return however small its inputs are
_PER_INPUT = 64  # times the bytes of the inputs, where those are more


def serve(descriptor: int, name: str, device: str) -> None:
    """Load a backend, say so, and answer calls until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with contextlib.suppress(OSError):  # where memory runs out, it is this process that goes, and not the suite
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    connection: Connection[Any, Any] = Connection(descriptor)
    process = os.getpid()

    def send(answer: object) -> None:
        if os.getpid() != process:
            os._exit(0)  # a copy that the backend made of this process has no answer to give
        connection.send(answer)

    try:
        backend = load_backend(name, device)
    except BackendLoadError as error:
        send(str(error))
        return
    send(describe(backend))
    while True:
        try:
            number, call = connection.recv()
        except (EOFError, ConnectionError):
            return
        send((number, _of_bearable_size(run_call(backend, call), call)))


def _of_bearable_size(outcome: Outcome, call: Call) -> Outcome:
    """Return an outcome; one of outputs that no operation returns for such inputs is a failure, and stays here."""
    arrays = [*outcome.outputs, *(array for step in outcome.steps for array in step.outputs)]
    size = sum(array.items.nbytes for array in arrays)
    given = sum(array.items.nbytes for array in call.inputs.values() if array is not None)
    most = max(MOST_OUTPUT, _PER_INPUT * given)
    if size <= most:
        return outcome
    return Outcome(failure="output", message=f"{size} bytes were returned for inputs of {given}, at most {most} can be")


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
