#!/bin/sh
# Makes .venv with the locked dependencies: `setup.sh` for running, `setup.sh notebook` for the notebook too, and
# `setup.sh dev` for tests and linters as well.
# Does nothing if it is already there.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}
lock=requirements.lock
[ "$kind" = run ] || lock=requirements-$kind.lock
stamp="$(cat requirements-uv.lock requirements.lock requirements-notebook.lock requirements-dev.lock pyproject.toml |
    cksum) $(pwd)"
if [ -x .venv/bin/taxi ]; then
    for done in "$kind" dev; do
        [ "$(cat ".venv/.installed-$done" 2>/dev/null)" = "$stamp" ] && exit 0
    done
fi

python=
for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "No Python 3.11 or newer with venv was found. Install one (on Debian: python3 and python3-venv), or set PYTHON." >&2
    exit 1
fi

echo "Setting up .venv for $kind ..." >&2
# After the folder was moved, or its Python removed, the .venv does not run.
.venv/bin/python -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null || rm -rf .venv
# If this Python's pip can install into other environments, .venv needs none of its own, which saves seven seconds.
if "$python" -m pip --python "$python" --version >/dev/null 2>&1; then
    [ -x .venv/bin/python ] || "$python" -m venv --without-pip .venv
    pip() { "$python" -m pip --python .venv/bin/python --disable-pip-version-check "$@"; }
else
    [ -x .venv/bin/pip ] || "$python" -m venv .venv
    pip() { .venv/bin/pip --disable-pip-version-check "$@"; }
fi
pip install --quiet --require-hashes -r requirements-uv.lock
index=$(pip config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
export UV_SYSTEM_CERTS=1 VIRTUAL_ENV="$(pwd)/.venv"
install() { .venv/bin/uv pip install --quiet "$@" || pip install --quiet --no-compile "$@"; }
install --require-hashes -r "$lock"
install --no-deps --no-build-isolation -e .
# Compiled here, not by the installers, so that a third of the files (libraries' tests and the like) are left out: 7 s,
# of these 0.8 s for what is compiled when it is first imported, such as Apprise's channels.
left_out='tests|testing|lexers|pyasn1_modules|antlr4|apprise/plugins|numpy/f2py'
.venv/bin/python -m compileall -q -j 0 -x "/($left_out)/" .venv/lib >/dev/null || true
printf '%s' "$stamp" > ".venv/.installed-$kind"
