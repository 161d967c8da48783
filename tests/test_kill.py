"""A few rounds of ``benchmarks/kill.py``, which is run for hundreds before a release; see docs/reliability.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which this system cannot")
def test_a_kill_at_any_moment_loses_at_most_what_is_in_flight() -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kill.py", "--rounds", "21", "--seed", "0"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "21 rounds, 0 with losses" in answer.stdout
