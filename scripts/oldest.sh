#!/bin/sh
# Pass the tests of files, sessions and the window with the oldest versions that are allowed, and with PyQt6 as Qt.
extra=gui venv=.venv-oldest
. "$(dirname "$0")/setup.sh"
mkdir -p build
pip install -q uv
"$venv/bin/uv" pip compile -q --resolution lowest-direct --extra gui --extra tracking pyproject.toml -o build/oldest.txt
# Torch stays: its oldest version has no build for every Python, and what it brings along fits it alone.
grep -vE '^(torch|triton|nvidia-[^=]*)==' build/oldest.txt > build/oldest-without-torch.txt
pip install -q -r build/oldest-without-torch.txt PyQt6 hypothesis psutil py-ctcmetrics pytest pytest-qt pytest-xdist pytest-xvfb yaozarrs
export OMP_NUM_THREADS=1 QT_API=pyqt6
exec "$venv/bin/python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -o qt_api=pyqt6 tests/core tests/io tests/session tests/gui "$@"
