"""Listing the installed backends."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qloracle_conformance.loading import BackendLoadError, known_backends
from qloracle_conformance.worker import WorkerProcess


def list_backends(console: Console) -> None:
    """Print name, version, number of claims and definition of every installed backend; why, where one cannot start."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "version", "operations claimed", "defined in"):
        table.add_column(name)
    for name, target in known_backends().items():
        try:
            worker = WorkerProcess(name)
        except BackendLoadError as error:
            table.add_row(name, "-", f"[yellow]{escape(str(error))}[/]", target)
            continue
        worker.close()
        table.add_row(name, worker.info.version, str(len(worker.info.claims)), target)
    console.print(table)
    console.print("or give your own as --backend module:attribute")
