#!/bin/sh
# Builds the wheel, installs it with the locked dependencies into an empty environment in an empty folder, and runs the
# platform there: without the repository, its settings and its data.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export UV_SYSTEM_CERTS=1
index=$("$root/.venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
install() { .venv/bin/uv pip install --quiet --python "$folder/.venv" "$@"; }

sh scripts/build.sh "$folder/dist"
.venv/bin/uv venv --quiet --python .venv/bin/python "$folder/.venv"
install --require-hashes -r requirements.lock
install --no-deps "$folder"/dist/*.whl

cd "$folder"
taxi() { env -i PATH="$folder/.venv/bin:/usr/bin:/bin" HOME="$folder" LANG=C.UTF-8 TAXI_DATASETS=green taxi "$@"; }
taxi --version
taxi demo
taxi doctor
taxi overview
test -s data/overview.html
taxi status --json | grep -c '"stage": "loaded"'
# What has run is the wheel, and it wrote into its own folder alone.
env -i "$folder/.venv/bin/python" -P -c 'import taxi_platform; print(taxi_platform.__file__)' | grep -F "$folder/.venv/"
