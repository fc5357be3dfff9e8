#!/bin/sh
# Makes a virtual environment and installs the pinned requirements: make_venv.sh PYTHON FOLDER
# A Python without ensurepip (Debian and Ubuntu keep it in python3-venv) gets its pip from the package index.
set -eu
python=$1
folder=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || {
    echo "error: '$python' is not Python 3.10 or newer; name one with: make PYTHON=python3.12" >&2
    exit 2
}
if [ ! -x "$folder/bin/pip" ]; then
    rm -rf "$folder"
    if ! "$python" -m venv "$folder" >/dev/null 2>&1; then
        echo "no ensurepip here: fetching pip from the package index"
        rm -rf "$folder"
        "$python" -m venv --without-pip "$folder"
        "$folder/bin/python" "$(dirname "$0")/fetch_pip.py"
    fi
fi
pip="$folder/bin/python -m pip install --disable-pip-version-check"
# torch by itself first, so that nothing else can choose another one.
$pip "$(grep '^torch==' requirements.txt)"
$pip -r requirements.txt -r requirements-dev.txt
$pip --no-deps -r requirements-demo.txt
# Chosen by those who train with it, and run by the tests; a machine where it cannot be built does without.
$pip -r requirements-deepspeed.txt ||
    echo "warning: DeepSpeed could not be installed; training with it, and its tests, are left out" >&2
