#!/bin/sh
# Make the virtual environment of this checkout: `scripts/setup.sh FOLDER`. Needs Python 3.11 or newer and nothing else.
# Everything comes by hash from requirements/*.lock; a torch that Python already has (a CPU build, say) is kept.
set -eu
venv="$1"

fail() {
    printf 'headwater: %s\n' "$*" >&2
    exit 2
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

# The folder that a usable torch lies in; nothing where there is none.
torch_folder() {
    "$1" 2>/dev/null - <<'END' || true
import pathlib, torch
if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 4):
    print(pathlib.Path(torch.__file__).parents[1])
END
}

make_venv() {
    python=$(find_python)
    [ -n "$python" ] || fail "no Python 3.11 or newer was found${PYTHON:+ as PYTHON=$PYTHON}:" \
        "install one (Debian: apt install python3 python3-venv; macOS: brew install python) or name it, make PYTHON=/path/to/python3"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: install its venv module (Debian: apt install python3-venv)"
    echo "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
    torch=$(torch_folder "$python")
    if [ -n "$torch" ]; then
        # Looked at last, so that of everything else there the locks' versions win.
        echo "$torch" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/headwater_torch.pth"
    fi
}

# uv where it works, because it is much faster and shows what it fetches; pip where only pip knows the way to an index.
install() {
    "$venv/bin/uv" pip install --python "$venv/bin/python" "$@" && return
    echo "uv could not install; trying pip"
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar on "$@"
}

[ -x "$venv/bin/python" ] || make_venv
new_enough "$venv/bin/python" || fail "$venv holds a Python older than 3.11: run make clean, then try again"
echo "installing what requirements/*.lock name; the first time this takes minutes"
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/uv.lock ||
    fail "pip could not install: check the network or its proxy (lines above), then run make again"
set -- --require-hashes -r requirements/base.lock
torch=$(torch_folder "$venv/bin/python")
if [ -n "$torch" ]; then
    echo "torch is there already and stays as it is: $torch"
else
    echo "torch comes with its CUDA libraries on Linux (5 GB); to avoid that, install a CPU build first:" \
        "https://pytorch.org/get-started/locally"
    set -- "$@" -r requirements/torch.lock
fi
install "$@" || fail "the packages could not be installed: check the network, the disk (lines above), then run make again"
install --no-deps --no-build-isolation --editable . || fail "this checkout could not be installed (lines above)"
# Byte code of what the aggregator imports: half of its start, at every start, where programs are forbidden to write it.
PYTHONDONTWRITEBYTECODE='' "$venv/bin/python" -c 'import headwater.aggregating, numba' ||
    fail "this checkout does not run (lines above)"
