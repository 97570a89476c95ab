#!/usr/bin/env bash
# Makes .venv from uv.lock, from a bare clone on: `make` calls it, nobody else has to.
#
# uv is taken from where it is; if there is none that works, it is installed from PyPI into .tools/ (git-ignored). Neither way
# touches the system's Python, so it also works where that refuses to be installed into (PEP 668, Debian 12).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '# %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

works() { "$@" --version >/dev/null 2>&1; }

install_uv_in_venv() {
    rm -rf .tools
    python3 -m venv .tools >/dev/null 2>&1 && .tools/bin/python -m pip install --quiet --disable-pip-version-check uv
}

# Debian without python3-venv has no ensurepip; pip may still be there, and installs into a folder without complaint.
install_uv_in_folder() {
    rm -rf .tools
    python3 -m pip install --quiet --disable-pip-version-check --target .tools/lib uv
    mkdir -p .tools/bin
    ln -sf ../lib/bin/uv .tools/bin/uv
}

find_uv() {
    if works uv; then UV=uv; return; fi
    if works .tools/bin/uv; then UV=.tools/bin/uv; return; fi
    works python3 || fail "python3 was not found: install Python 3.11 or newer, then try again"
    say "no uv here: installing it from PyPI into .tools/"
    install_uv_in_venv || install_uv_in_folder ||
        fail "uv could not be installed. Install it (https://docs.astral.sh/uv/), or python3-venv, then try again"
    UV=.tools/bin/uv
}

find_uv
say "installing what uv.lock names into .venv ($("$UV" --version))"
"$UV" sync --frozen --quiet
touch .venv/.ready
