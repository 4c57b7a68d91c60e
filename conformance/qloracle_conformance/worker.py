"""The worker process: a backend that hangs or crashes costs a verdict, not the run.

It leads a session of its own, so that what a backend starts ends with it. Neither sending a call nor receiving an
answer can last longer than the time limit, whatever state the process is in; what is no answer to the call that was
sent counts as a crash.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

from qloracle_conformance.backend import BackendInfo
from qloracle_conformance.execution import Call, Outcome
from qloracle_conformance.loading import BackendLoadError

LOAD_TIMEOUT = 180.0  # seconds; importing a framework on a busy machine is slow
THREADS = 2  # pinned, so that sums are added in the same order from run to run
MOST_WORDS = 1 << 22  # bytes of what a backend prints that are kept from one call to the next
_PATIENCE = 5.0  # seconds for a process to end that has closed its end
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
        self.name, self.device, self.timeout, self._sent = name, device, timeout, 0
        self._process: subprocess.Popen[bytes] | None = None
        self.info: BackendInfo = self._start()

    def run(self, call: Call, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """Run a call, and something else while it runs; a hang or the death of the process is a failed outcome."""
        if self._process is None:
            try:
                self._start()
            except BackendLoadError as error:
                return Outcome(failure="crashed", message=f"the worker cannot be started again: {error}")
        deadline = time.monotonic() + self.timeout
        problem = self._or_failure(lambda: self._send(call))
        if meanwhile is not None:
            meanwhile()
        return problem or self._or_failure(lambda: self._answer(deadline)) or self._timeout()

    def _or_failure(self, action: Callable[[], Outcome | None]) -> Outcome | None:
        """Return what an action on the connection returns, or the failure that it ran into."""
        try:
            return action()
        except BlockingIOError:  # it neither takes the call nor finishes its answer
            return self._timeout()
        except (EOFError, OSError):
            return self._obituary()
        except Exception as error:  # noqa: BLE001  # bytes that are no answer can raise anything
            self.close()
            return Outcome(failure="crashed", message=f"the worker wrote no answer: {type(error).__name__}: {error}")

    def _send(self, call: Call) -> None:
        if os.fstat(self._log.fileno()).st_size > MOST_WORDS:  # both ends share its position
            self._log.seek(0)
            self._log.truncate()
        self._sent += 1
        self._connection.send((self._sent, call))

    def _answer(self, deadline: float) -> Outcome | None:
        """Return the answer, or None if there is none in time."""
        while not self._connection.poll(min(0.5, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return None
            ended = self._process is None or self._process.poll() is not None
            if ended and not self._connection.poll(0):  # a process that it left behind may keep the other end open
                return self._obituary()
        number, outcome = self._connection.recv()
        if number != self._sent or not isinstance(outcome, Outcome):
            self.close()
            return Outcome(failure="crashed", message="the worker answered another call than the one that was sent")
        return outcome

    def _timeout(self) -> Outcome:
        self.close()
        return Outcome(failure="timeout", message=f"no answer within {self.timeout:g} s; the worker was ended")

    def close(self) -> None:
        """End the process, and those that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            self._connection.close()
            self._log.close()
            self._process = None

    def _start(self) -> BackendInfo:
        ours, theirs = Pipe()
        _limit(ours, self.timeout)
        self._connection: Connection[Any, Any] = ours
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process that writes it
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(THREADS))}
        command = [sys.executable, "-m", "qloracle_conformance.serving", str(theirs.fileno()), self.name, self.device]
        self._process = subprocess.Popen(
            command, pass_fds=(theirs.fileno(),), env=environment, stdin=subprocess.DEVNULL, stdout=self._log,
            stderr=self._log, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        try:
            answer = (
                self._connection.recv() if self._connection.poll(LOAD_TIMEOUT) else f"not loaded in {LOAD_TIMEOUT:g} s"
            )
        except Exception:  # noqa: BLE001  # it died, or bytes that are no answer came first
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
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.close()
            return Outcome(failure="crashed", message="the worker process closed its end and went on; it was ended")
        self._log.seek(0)
        words = self._log.read()[-4000:].decode(errors="replace")
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.close()
        return Outcome(failure="crashed", message=f"the worker process died: {cause}", details=words)


def _limit(connection: "Connection[Any, Any]", seconds: float) -> None:
    """Let reading from a connection, and writing to it, fail after some seconds without a byte."""
    whole = int(seconds)
    spell = struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))
    with socket.socket(fileno=os.dup(connection.fileno())) as shared:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            shared.setsockopt(socket.SOL_SOCKET, option, spell)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"
