# Make .venv, or the environment that $venv names, of the newest Python or the one that $python names, with this
# checkout installed in it: extra=all; . scripts/setup.sh
# Sourced by the other scripts. POSIX sh, nothing but Python is expected.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

# What a real Qt window and a virtual screen need on a bare Debian or Ubuntu.
libraries="libglib2.0-0 libgl1 libegl1 libxkbcommon0 libdbus-1-3 libfontconfig1 xvfb xauth libgl1-mesa-dri \
libxcb-cursor0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"

for candidate in ${python:-python3.13 python3.12 python3.11 python3 python}; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    found=yes
    break
  fi
done
if [ -z "${found:-}" ]; then
  echo "Python 3.11 or newer is needed; install it first." >&2
  exit 1
fi

if command -v apt-get >/dev/null 2>&1; then
  missing=
  for library in $libraries; do
    dpkg-query -W -f='${Status}' "$library" 2>/dev/null | grep -q 'ok installed' || missing="$missing $library"
  done
  "$python" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
  if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
      apt-get update -q >&2
      # shellcheck disable=SC2086
      # Newer releases have renamed libglib2.0-0; apt resolves it by what it provides.
      DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2
    elif [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
      echo "If the window does not open, an administrator can run: apt-get install$missing" >&2
    fi
  fi
fi

venv=${venv:-.venv}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# Torch first, so that no later requirement chooses its build.
torch=torch==2.13.0
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  if command -v nvidia-smi >/dev/null 2>&1 || [ "$(uname)" != Linux ]; then
    pip install -q "$torch"
  elif pip install -q --dry-run --ignore-installed --report - "$torch" 2>/dev/null | grep -q '"name": "nvidia-'; then
    # The registry would send gigabytes of CUDA to a machine without a GPU.
    pip install -q "$torch" --index-url https://download.pytorch.org/whl/cpu || {
      echo "No CPU build of torch can be reached; install one into $venv and run this again." >&2
      exit 1
    }
  else
    pip install -q "$torch"
  fi
fi
pip install -q -e ".[$extra]"
