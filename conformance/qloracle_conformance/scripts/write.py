"""Writing the script of a witness: what `qloracle witness-script` does."""

from pathlib import Path

from qloracle_conformance.loading import load_backend
from qloracle_conformance.scripts.facts import facts_of
from qloracle_conformance.scripts.text import script_text
from qloracle_conformance.witness import Witness, read_witness


def witness_script(path: Path, backend: str | None, device: str | None) -> str:
    """Return a script that shows what a witness file records, with the backend's library and NumPy alone.

    Raises
    ------
    FileError, BackendLoadError, UsageError
        If the file is no witness, the backend cannot be had, the fault is gone, or no script can show it.
    """
    return script_of(read_witness(path), backend, device)


def script_of(witness: Witness, backend: str | None = None, device: str | None = None, reason: str = "") -> str:
    """Return the script of a witness that is read already; see `witness_script`."""
    loaded = load_backend(backend or witness.backend, device or witness.device)
    facts = facts_of(witness, loaded)
    clause = facts.operation.stages.get(facts.stage, "")
    told = {"property": witness.property, "clause": clause, "rule": _rule(clause), "reason": reason}
    return script_text(facts, loaded, told)


def _rule(clause: str) -> str:
    """Return the formula of a clause."""
    if not clause:
        return ""
    from qloracle_conformance.explain import rule_of

    return rule_of(clause)
