#!/bin/sh
# Set everything up, check style and types, and run the tests; arguments go to pytest.
extra=test
. "$(dirname "$0")/setup.sh"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
