#!/bin/sh
# Build the documentation into build/docs; any warning is an error.
extra=docs
. "$(dirname "$0")/setup.sh"
exec .venv/bin/sphinx-build -W --keep-going -q -b html docs build/docs
