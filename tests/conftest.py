"""Fixtures shared by all tests."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weight_server import Server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images with ground truth: SEGANY_DATA, or ``shared/data`` beside the checkout."""
    folder = Path(os.environ.get("SEGANY_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "dev" / "index.json").exists():
        pytest.skip(f"real images with ground truth are not at {folder}; set SEGANY_DATA to their folder")
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    """A publisher of weights on this computer."""
    served = Server()
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
