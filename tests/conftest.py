"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images with ground truth: SEGANY_DATA, or ``shared/data`` beside the checkout."""
    folder = Path(os.environ.get("SEGANY_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "dev" / "index.json").exists():
        pytest.skip(f"real images with ground truth are not at {folder}; set SEGANY_DATA to their folder")
    return folder
