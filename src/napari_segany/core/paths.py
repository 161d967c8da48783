"""Looking at paths that anybody may have typed."""

from __future__ import annotations

import os
from pathlib import Path


def exists(path: Path) -> bool:
    """Whether something is there; False also for a path that the system refuses to look at, such as one too long."""
    return os.path.exists(path)  # noqa: PTH110
