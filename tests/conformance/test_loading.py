"""Finding a backend by its short name or as module:attribute."""

import importlib.metadata
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.loading import BackendLoadError, known_backends, load_backend

from .commands import REFERENCE, write_module

Installed = Callable[[dict[str, str]], None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Pretend that these short names are installed, and no others."""

    def install(names: dict[str, str]) -> None:
        found = [EntryPoint(name, value, "qloracle.backends") for name, value in names.items()]

        def entry_points(*, group: str) -> list[EntryPoint]:
            assert group == "qloracle.backends"
            return found

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)

    return install


def test_the_installed_short_names_are_known_in_order(installed: Installed) -> None:
    installed({"zeta": "z.adapter:backend", "alpha": "a.adapter:backend"})
    assert known_backends() == {"alpha": "a.adapter:backend", "zeta": "z.adapter:backend"}
    assert list(known_backends()) == ["alpha", "zeta"]


def test_a_short_name_loads_what_its_entry_point_names(installed: Installed) -> None:
    installed({"twin": REFERENCE})
    assert load_backend("twin", "cpu").name == "reference"


def test_a_backend_is_loaded_as_module_and_attribute() -> None:
    assert load_backend(REFERENCE, "cpu").claims == reference().claims


def test_a_backend_record_is_taken_as_it_is_and_a_function_is_given_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write_module(
        tmp_path, "two_kinds",
        """
        from dataclasses import replace
        from qloracle_conformance.adapters.reference import backend as reference
        record = replace(reference(), name="a record")
        def function(device):
            return replace(reference(), name=f"on {device}")
        """,
    )  # fmt: skip
    assert load_backend("two_kinds:record", "cuda:1").name == "a record"
    assert load_backend("two_kinds:function", "cuda:1").name == "on cuda:1"


def test_a_backend_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(
        tmp_path, "lies_here", "from qloracle_conformance.adapters.reference import backend\n"
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    assert load_backend("lies_here:backend", "cpu").name == "reference"


def test_an_unknown_short_name_is_an_error_that_lists_the_known_ones(installed: Installed) -> None:
    installed({"alpha": "a:b", "beta": "c:d"})
    with pytest.raises(BackendLoadError, match=r"^unknown backend 'gamma'; known: alpha, beta; or give module:attr"):
        load_backend("gamma", "cpu")


def test_a_short_name_whose_module_is_missing_names_the_extra_to_install(installed: Installed) -> None:
    installed({"torch-new": "nonesuch_library.adapter:backend"})
    with pytest.raises(BackendLoadError, match=r"'nonesuch_library'; try: pip install 'qloracle\[torch\]'"):
        load_backend("torch-new", "cpu")


def test_a_device_that_the_backend_does_not_have_is_an_error_that_says_so() -> None:
    with pytest.raises(BackendLoadError, match=r"cannot start on device 'cuda': the reference runs on cpu only"):
        load_backend(REFERENCE, "cuda")
