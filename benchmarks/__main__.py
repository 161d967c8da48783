"""The whole performance table: ``python benchmarks`` runs every program that docs/performance.md names, one by one.

``python benchmarks --quick`` takes the small sizes: minutes instead of an hour.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: Program -> arguments of the quick run.
PROGRAMS = {
    "sam.py": ["--rounds", "1"],
    "sam2.py": ["--objects", "1", "--ours-only"],
    "sam3.py": ["--rounds", "1"],
    "nano.py": [],
    "everything.py": ["--size", "256", "--points", "16"],
    "embeddings.py": ["--planes", "20"],
    "ahead.py": ["--planes", "8"],
    "remote.py": ["--clicks", "5"],
    "scaling.py": ["--objects", "1", "16", "64", "--planes", "10", "40", "--sides", "512", "1024", "2048"],
}


def main() -> None:
    failed = []
    for program, quick in PROGRAMS.items():
        arguments = quick if "--quick" in sys.argv else []
        print(f"== {' '.join([program, *arguments])}", flush=True)
        if subprocess.run([sys.executable, str(Path(__file__).parent / program), *arguments], check=False).returncode:
            failed.append(program)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
