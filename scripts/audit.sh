#!/bin/sh
# Asks the package index for known holes in every locked version; fails where there is one. Where the index tells
# nothing of holes, as many mirrors do, it says how many versions could not be looked up, and passes.
set -eu
cd "$(dirname "$0")/.."
home=.venv-audit
lock=requirements-audit.lock
if [ "$(cat "$home/.installed" 2>/dev/null)" != "$(cksum < $lock)" ]; then
    rm -rf "$home"
    .venv/bin/python -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    cksum < "$lock" > "$home/.installed"
fi
found=$(mktemp)
trap 'rm -f "$found"' EXIT
# Its exit status is 1 for a hole and for many other things: what counts is what it found.
"$home/bin/pip-audit" --no-deps --disable-pip --progress-spinner off -f json -o "$found" \
    -r requirements-dev.lock 2>/dev/null || true
"$home/bin/python" - "$found" << 'PYTHON'
import json, sys
try:
    packages = json.load(open(sys.argv[1]))["dependencies"]
except ValueError:
    sys.exit("The audit did not finish.")
holes = [(p["name"], p["version"], hole) for p in packages for hole in p.get("vulns", ())]
for name, version, hole in holes:
    print(f"{name} {version}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no version yet'}")
unknown = sum("skip_reason" in p for p in packages)
print(f"{len(packages) - unknown} of {len(packages)} locked versions looked up, {len(holes)} known holes.")
if unknown:
    print(f"{unknown} could not be looked up: the index that this machine uses does not tell of holes.")
sys.exit(bool(holes))
PYTHON
