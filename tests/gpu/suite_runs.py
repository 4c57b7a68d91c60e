"""`qloracle check` on a backend of ours, in a process of its own, as a test calls it."""

import json
import subprocess
import sys
from pathlib import Path

CALL = "import sys; from qloracle_conformance.cli import main; sys.exit(main())"


def passed_operations(backend: str, folder: Path) -> set[str]:
    """Operations that pass somewhere at the smoke profile, in which nothing fails; `backend` is module:attribute."""
    report = folder / "report.jsonl"
    options = ["check", "--backend", backend, "--profile", "smoke", "--report", str(report)]
    command = [sys.executable, "-W", "ignore", "-c", CALL, *options]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    return {line["operation"] for line in lines if line["type"] == "property" and line["status"] == "pass"}
