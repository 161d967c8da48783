#!/bin/sh
# Set everything up, check style and types, and run the tests; arguments go to pytest.
# With another Python: python=python3.12 venv=.venv-3.12 sh scripts/test.sh
extra=test
. "$(dirname "$0")/setup.sh"
"$venv"/bin/ruff check .
"$venv"/bin/ruff format --check .
"$venv"/bin/mypy
# A process for each core, each with one thread and a screen of its own; tests of one file stay together.
export OMP_NUM_THREADS=1
exec "$venv"/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
