#!/bin/sh
# Builds the wheel and the sdist into dist/, or the folder that is named, without the network: the build backend is locked.
# The same commit gives the same bytes.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-dist}
if [ -z "${SOURCE_DATE_EPOCH:-}" ] && git rev-parse --verify --quiet HEAD >/dev/null 2>&1; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
fi
.venv/bin/python -m hatchling build --clean --target sdist --target wheel --directory "$folder"
