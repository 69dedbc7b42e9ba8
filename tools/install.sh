#!/bin/sh
# Make the virtual environment $1 and install the project into it, with uv where present, else with venv and pip.
# Safe to run again: what is there already is kept.
set -eu
venv=$1

if command -v uv >/dev/null 2>&1; then
    [ -x "$venv/bin/python" ] || uv venv --quiet --python ">=3.10" "$venv"
    uv pip install --quiet --python "$venv/bin/python" -e ".[dev]"
else
    for python in python3 python3.13 python3.12 python3.11 python3.10 none; do
        [ "$python" = none ] && { echo "install: no Python 3.10 or newer found; install one, or uv" >&2; exit 2; }
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break
    done
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[dev]"
fi
"$venv/bin/python" -c '
import sys
from cvpods_ext.errors import UserError
from cvpods_ext.runtime.environment import check_torch_pair
try:
    check_torch_pair()
except UserError as error:
    sys.exit(f"install: {error}")'
