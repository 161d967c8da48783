#!/bin/sh
# Set everything up and run the main job; arguments go to `segany demo`.
. "$(dirname "$0")/setup.sh" all
exec .venv/bin/segany demo "$@"
