#!/bin/sh
# Makes .venv-bigquery with the BigQuery emulator for tests, which needs a newer Python than the project; prints its
# interpreter. Does nothing if it is already there. Exit status 3: no Python 3.13 or newer runs here.
set -eu
cd "$(dirname "$0")/.."
home=.venv-bigquery
lock=requirements-bigquery.lock
stamp="$(cksum < "$lock") $(pwd)"
finished() { [ "$(cat "$home/.installed" 2>/dev/null)" = "$stamp" ] && "$home/bin/python" -c '' 2>/dev/null; }
if finished; then
    echo "$(pwd)/$home/bin/python"
    exit 0
fi

uv=
for candidate in .venv/bin/uv uv; do
    if "$candidate" --version >/dev/null 2>&1; then uv=$candidate; break; fi
done
# A version manager's shim may be on the path but not run, so each candidate is tried.
python=
for candidate in ${PYTHON_BIGQUERY:-} python3.13 python3.14 python3 \
    "$([ -z "$uv" ] || "$uv" python find --offline --no-python-downloads '>=3.13' 2>/dev/null)" \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[3-9]*/bin/python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip, ssl; sys.exit(sys.version_info < (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "The BigQuery emulator needs Python 3.13 or newer, and none runs here." >&2
    exit 3
fi

echo "Setting up $home ..." >&2
rm -rf "$home"
"$python" -m venv "$home"
index=$("$home/bin/pip" config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
export UV_SYSTEM_CERTS=1 UV_COMPILE_BYTECODE=1
# The messages of uv and pip go to standard error: standard output is the interpreter's path alone.
{ [ -n "$uv" ] && "$uv" pip install --quiet --python "$home/bin/python" --require-hashes -r "$lock"; } >&2 ||
    "$home/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$lock" >&2
printf '%s' "$stamp" > "$home/.installed"
echo "$(pwd)/$home/bin/python"
