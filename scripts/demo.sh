#!/bin/sh
# Set everything up and run the main job; arguments go to `segany demo`.
extra=all
. "$(dirname "$0")/setup.sh"
exec .venv/bin/segany demo "$@"
