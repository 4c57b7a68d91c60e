"""Replaying a witness in a new process: the same call, the same judge, no search."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from qloracle_conformance.execution import Executor
from qloracle_conformance.files import FileError
from qloracle_conformance.operations.operation import OUT
from qloracle_conformance.registry import JUDGED
from qloracle_conformance.run import judge_case
from qloracle_conformance.tally import Tally
from qloracle_conformance.task import Task
from qloracle_conformance.verdicts import PropertyResult, TaskState, verdicts
from qloracle_conformance.witness import Witness, read_witness
from qloracle_conformance.worker import WorkerProcess


def replay(path: Path, backend: str | None, device: str | None, timeout: float, console: Console) -> int:
    """Run the case of a witness against a backend and return 0 if its claim holds now, 1 if not.

    Raises
    ------
    FileError, BackendLoadError
        If the file is no witness, or the backend cannot be had.
    """
    witness = read_witness(path)
    worker = WorkerProcess(backend or witness.backend, device or witness.device, timeout)
    try:
        result = replayed(witness, worker)
    finally:
        worker.close()
    told = f"{witness.property} on {worker.info.name} {worker.info.version}: {result.status}"
    console.print(escape(told), highlight=False)
    finding = result.tally.finding
    if finding is not None:
        console.print(f"  got      {escape(finding.got)} at element {finding.element}", soft_wrap=True, highlight=False)
        console.print(f"  allowed  {escape(finding.allowed)}", soft_wrap=True, highlight=False)
    if result.message:
        console.print(f"  because  {escape(result.message)}", soft_wrap=True, highlight=False)
    return 0 if result.status == "pass" else 1


def replayed(witness: Witness, executor: Executor) -> PropertyResult:
    """Run the case of a witness and return the verdict on its property.

    Raises
    ------
    FileError
        If the case is none that the operation can be judged by.
    """
    operation = JUDGED[witness.operation]
    task = Task(operation, witness.family, witness.claim, 1, 0, 0)
    stages = dict.fromkeys((*operation.stages_of(witness.family), *operation.stages_of("memory")))
    state = TaskState({stage: Tally() for stage in stages if stage != OUT or witness.stage == OUT})
    try:
        judge_case(executor, task, witness.case, state)
    except Exception as error:
        place = witness.path or witness.property
        raise FileError(
            f"{place}: its case is none that {witness.operation} can be judged by: {type(error).__name__}: {error}"
        ) from error
    return next(r for r in verdicts(task, state, 0.0) if r.stage == witness.stage)
