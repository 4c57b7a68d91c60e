"""Listing the installed backends."""

import os
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from qloracle_conformance.loading import BackendLoadError, known_backends
from qloracle_conformance.worker import WorkerProcess


def list_backends(console: Console) -> None:
    """Print name, version, number of claims and definition of every installed backend; why, where one cannot start."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "version", "operations claimed", "defined in"):
        table.add_column(name)
    known = known_backends()
    progress = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each loads its library in a process of its own
        told = pool.map(_version_and_claims, known)
        shown = track(
            told, "Loading", total=len(known), console=progress, transient=True, disable=not progress.is_terminal
        )
        for (name, target), (version, claims) in zip(known.items(), shown, strict=True):
            table.add_row(name, version, claims, target)
    console.print(table)
    console.print("or give your own as --backend module:attribute")


def _version_and_claims(name: str) -> tuple[str, str]:
    try:
        worker = WorkerProcess(name)
    except BackendLoadError as error:
        return "-", f"[yellow]{escape(str(error))}[/]"
    worker.close()
    return worker.info.version, str(len(worker.info.claims))
