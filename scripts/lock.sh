#!/bin/sh
# Pins every dependency with hashes, for all systems and Pythons from 3.11; the files name no package index.
set -eu
cd "$(dirname "$0")/.."
lock() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url "$@"; }
export UV_SYSTEM_CERTS=1
printf 'uv\n' | lock - -o requirements-uv.lock
printf 'pip-audit\n' | lock - -o requirements-audit.lock
lock pyproject.toml --extra setup -o requirements.lock
lock pyproject.toml --extra setup --extra notebook -c requirements.lock -o requirements-notebook.lock
deploy="--extra agents --extra cloud-run --extra kubernetes"
# The names are words of their own on purpose.
# shellcheck disable=SC2086
lock pyproject.toml --extra setup $deploy -c requirements.lock -o requirements-deploy.lock
# shellcheck disable=SC2086
lock pyproject.toml --extra setup $deploy --extra notebook --extra dev \
    -c requirements-notebook.lock -c requirements-deploy.lock -o requirements-dev.lock
