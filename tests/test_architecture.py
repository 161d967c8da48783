"""The house's import table: who may import whom, and which heavy packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "napari_segany"

#: Room -> rooms it may import.
ALLOWED = {
    "core": set(),
    "io": {"core"},
    "models": {"core"},
    "session": {"core"},
    "training": {"core", "io", "models"},
    "samples": {"training"},
    "api": {"core", "io", "models", "session", "training", "cluster"},
    "cluster": {"core", "io", "models", "session"},
    "labelling": {"core", "io", "session", "api", "cluster"},
    "demo": {"core", "api", "samples"},
    "cli": {"core", "api", "labelling", "demo"},
    "gui": {"core", "session", "api", "samples"},
    "__init__": {"api", "core", "labelling", "samples", "training"},
}
#: Heavy package -> rooms that may import it.
HEAVY = {
    "torch": {"models", "training"},
    "safetensors": {"models"},
    "zarr": {"io"},
    "dask": {"io"},
    "distributed": {"cluster"},
    "napari": {"gui"},
    "qtpy": {"gui"},
    "superqt": {"gui"},
    "magicgui": {"gui"},
    "vispy": {"gui"},
}


def imports_of(path: Path) -> set[str]:
    """Dotted names a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "napari_segany" and len(parts) > 1 and parts[1] in ALLOWED:
            assert parts[1] == room or parts[1] in ALLOWED[room], f"{room} may not import {name}"
        if parts[0] in HEAVY:
            assert room in HEAVY[parts[0]], f"{room} may not import {parts[0]}"


def test_every_room_is_in_the_table() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == set(ALLOWED)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, napari_segany; "
        "print([m for m in ('torch', 'qtpy', 'PySide6', 'PyQt6', 'napari', 'zarr', 'dask', 'distributed', 'skimage', "
        "'scipy') "
        "if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_loading_the_model_that_ships_leaves_the_compiler_of_torch_alone() -> None:
    code = (
        "import sys; from napari_segany.models import registry; registry.load_model('nano'); "
        "print([m for m in ('torch._dynamo', 'torch._inductor', 'triton') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
