"""Judging the answers of a program: the judge of `qloracle check`, fed from a text instead of a backend."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from qloracle_conformance.backend import BackendInfo
from qloracle_conformance.exchange.reading import CutShortError, TokenLines
from qloracle_conformance.exchange.records import Answer, read_answer
from qloracle_conformance.execution import Call, Outcome
from qloracle_conformance.operations.operation import CONDUCT
from qloracle_conformance.pipe.selection import Selection, Sent, cases_of
from qloracle_conformance.run import judge_case
from qloracle_conformance.task import Task
from qloracle_conformance.verdicts import PropertyResult, fresh_state, verdicts


@dataclass
class Answers:
    """An executor whose calls were made elsewhere: each one takes the next answer of a text."""

    info: BackendInfo
    lines: TokenLines
    sent: Sent | None = None  # the case whose answer must come next
    taken: int = 0
    over: str = ""  # why there are no more answers

    def run(self, call: Call, meanwhile: Callable[[], None] | None = None) -> Outcome:  # noqa: ARG002
        """Return what the text holds for the case that was sent."""
        answer = None if self.over else self._next()
        if answer is None:
            return Outcome(failure="crashed", message=f"{self.over}; {self.taken} cases were answered")
        if self.sent is None or answer.id != self.sent.id:
            self.lines.number = answer.line
            self.lines.reject(
                f"expected an answer to case {self.sent.id if self.sent else 'none'}, got one to {answer.id}; answers"
                " keep the order of the cases, and judge takes the options of gen"
            )
        self.taken += 1
        if answer.error:
            return Outcome(failure="raised", message=f"line {answer.line}: {answer.error}")
        return Outcome(outputs=answer.outputs)

    def close(self) -> None:
        """Release nothing."""

    def _next(self) -> Answer | None:
        """Return the next answer; None where there is none, and why."""
        try:
            answer = read_answer(self.lines)
        except CutShortError:
            self.over = f"the answers end inside one, at line {self.lines.number}"
            return None
        self.over = "" if answer else f"the answers end after line {self.lines.number}"
        return answer

    def require_end(self) -> None:
        """Refuse a text that goes on.

        Raises
        ------
        FileError
            If there is one more answer, or anything else.
        """
        if not self.over and self.lines.next() is not None:
            self.lines.reject("nothing may follow the answer to the last case; judge takes the options of gen")


@dataclass
class Judged:
    """The verdicts on a family, and the case behind each that broke a claim."""

    results: list[PropertyResult]
    broken: dict[str, Sent] = field(default_factory=dict)  # by property id


def judge_task(task: Task, selection: Selection, answers: Answers) -> Judged:
    """Judge the answers to the cases of one task; what memory does is not judged, for a text does not show it."""
    state, sent_by_case = fresh_state(task), dict[int, Sent]()
    for sent in cases_of(task, selection):
        answers.sent = sent
        sent_by_case[id(sent.case)] = sent
        failed = state.failure, state.failed_case
        judge_case(answers, task, sent.case, state)
        if failed[0] is not None:  # the first failure tells more than those that follow
            state.failure, state.failed_case = failed
    answers.sent = None
    # A stage that no case of a narrowed selection reaches is left out; in a whole one it is an error, as in `check`.
    narrowed = selection.index is not None or selection.largest is not None
    left_out = {stage for stage, tally in state.tallies.items() if narrowed and not tally.cases and not state.failure}
    results = [r for r in verdicts(task, state, 0.0) if r.stage not in {*CONDUCT, *left_out}]
    broken = {r.id: sent_by_case[id(r.tally.case)] for r in results if r.tally.case is not None}
    return Judged([r for r in results if sent_by_case], broken)


def reproducing(sent: Sent, words: Iterable[str], level: str) -> str:
    """Return the command line that sends one case again; `words` are the other options of the run."""
    options = " ".join([f"--family {sent.task.family} --case {sent.index}", *words])
    name, claimed = sent.task.operation.name, "" if level == "exact" else f" --level {level}"
    return f"qloracle gen {name} {options} | YOUR_PROGRAM | qloracle judge {name} {options}{claimed}"
