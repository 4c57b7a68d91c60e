"""Writing cases for a program to answer."""

from typing import IO

from threadpoolctl import threadpool_limits

from qloracle_conformance.exchange.records import head_of
from qloracle_conformance.pipe.selection import Selection, cases_of, tasks_of
from qloracle_conformance.usage import UsageError


def generate_cases(selection: Selection, out: IO[str]) -> int:
    """Write the cases of a selection, and return the exit code.

    Raises
    ------
    UsageError
        If it names something that does not exist, or no case at all.
    """
    sent = 0
    with threadpool_limits(limits=1):
        for task in tasks_of(selection):
            for case in cases_of(task, selection):
                out.write(head_of(case.id, selection.operation))
                out.write(case.body)
                out.write("end\n")
                sent += 1
    out.flush()
    if not sent:
        raise UsageError(f"no case of {selection.operation} is left: allow more with --count, --largest or --option")
    return 0
