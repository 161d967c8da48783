"""The documentation speaks of what there is: its code parses, its names exist, its pictures are there."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

import napari_segany as segany

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Attributes of a session that only an instance has.
OF_INSTANCES = {"prompts", "clicks", "accepted", "scores", "settings", "model"}


def blocks(page: Path) -> list[ast.Module]:
    return [ast.parse(code) for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_names_what_exists(page: Path) -> None:
    for tree in blocks(page):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner, name = node.value.id, node.attr
                if owner == "segany":
                    assert hasattr(segany, name), f"segany.{name}"
                elif owner == "session" and name not in OF_INSTANCES:
                    assert hasattr(segany.Session, name), f"session.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_key_is_told() -> None:
    from napari_segany.gui.keys import KEYS

    table = (ROOT / "docs" / "window.md").read_text()
    assert all(f"`{key}`" in table for key in KEYS.values())


def test_one_command_prints_the_whole_performance_table() -> None:
    folder = Path(__file__).parents[1]
    named = set(re.findall(r"python benchmarks/(\w+\.py)", (folder / "docs" / "performance.md").read_text()))
    programs = runpy.run_path(str(folder / "benchmarks" / "__main__.py"))["PROGRAMS"]
    assert named == set(programs)
    for program, quick in programs.items():
        text = (folder / "benchmarks" / program).read_text()
        assert all(f'"{option}"' in text for option in quick if option.startswith("--")), program
