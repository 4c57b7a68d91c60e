"""The worker process: a backend that hangs or crashes costs a verdict, not the run."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

from qloracle_conformance.backend import BackendInfo
from qloracle_conformance.execution import Call, Outcome, run_call
from qloracle_conformance.loading import BackendLoadError, load_backend

LOAD_TIMEOUT = 180.0  # seconds; importing a framework on a busy machine is slow
THREADS = 2  # pinned, so that sums are added in the same order from run to run
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class WorkerProcess:
    """Run calls in a process of their own, which is started again after a hang or a crash."""

    def __init__(self, name: str, device: str = "cpu", timeout: float = 60.0) -> None:
        """Start the process and load the backend.

        Parameters
        ----------
        name : str
            The backend, see `loading.load_backend`.
        device : str
        timeout : float
            Seconds that one call may take.

        Raises
        ------
        BackendLoadError
            If the backend cannot be loaded, with the reason.
        """
        self.name, self.device, self.timeout = name, device, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self.info: BackendInfo = self._start()

    def run(self, call: Call, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """Run a call, and something else while it runs; a hang or the death of the process is a failed outcome."""
        if self._process is None:
            try:
                self._start()
            except BackendLoadError as error:
                return Outcome(failure="crashed", message=f"the worker cannot be started again: {error}")
        try:
            deadline = time.monotonic() + self.timeout
            self._connection.send(call)
            if meanwhile is not None:
                meanwhile()
            if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                self.close()
                return Outcome(failure="timeout", message=f"no answer within {self.timeout:g} s; the worker was ended")
            outcome: Outcome = self._connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._obituary()
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()
            self._log.close()
            self._process = None

    def _start(self) -> BackendInfo:
        ours, theirs = Pipe()
        self._connection: Connection[Any, Any] = ours
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process that writes it
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(THREADS))}
        command = [sys.executable, "-m", "qloracle_conformance.worker", str(theirs.fileno()), self.name, self.device]
        self._process = subprocess.Popen(
            command, pass_fds=(theirs.fileno(),), env=environment, stdin=subprocess.DEVNULL, stdout=self._log,
            stderr=self._log,
        )  # fmt: skip
        theirs.close()
        try:
            answer = (
                self._connection.recv() if self._connection.poll(LOAD_TIMEOUT) else f"not loaded in {LOAD_TIMEOUT:g} s"
            )
        except (EOFError, OSError):
            outcome = self._obituary()
            answer = f"backend {self.name!r}: {outcome.message} while loading; {_last_line(outcome.details)}"
        if not isinstance(answer, BackendInfo):
            self.close()
            raise BackendLoadError(str(answer))
        return answer

    def _obituary(self) -> Outcome:
        """Return why the process died, with what it wrote last."""
        if self._process is None:
            return Outcome(failure="crashed", message="the worker process is gone")
        code = self._process.wait()
        self._log.seek(0)
        words = self._log.read()[-4000:].decode(errors="replace")
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.close()
        return Outcome(failure="crashed", message=f"the worker process died: {cause}", details=words)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"


def serve(descriptor: int, name: str, device: str) -> None:
    """Load a backend, say so, and answer calls until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection: Connection[Any, Any] = Connection(descriptor)
    try:
        backend = load_backend(name, device)
    except BackendLoadError as error:
        connection.send(str(error))
        return
    from qloracle_conformance.backend import describe

    connection.send(describe(backend))
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        connection.send(run_call(backend, call))


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
