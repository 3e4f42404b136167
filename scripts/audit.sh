#!/bin/sh
# Asks the package index for known vulnerabilities of every locked version; fails if there is one. If the index does
# not list vulnerabilities, as many mirrors do not, it says how many versions could not be looked up, and passes.
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
report=$(mktemp)
trap 'rm -f "$report"' EXIT
# Its exit status is 1 for a vulnerability and for many other reasons, so only its report counts.
"$home/bin/pip-audit" --no-deps --disable-pip --progress-spinner off -f json -o "$report" \
    -r requirements-dev.lock 2>/dev/null || true
"$home/bin/python" - "$report" << 'PYTHON'
import json, sys
try:
    packages = json.load(open(sys.argv[1]))["dependencies"]
except ValueError:
    sys.exit("The audit did not finish.")
vulnerabilities = [(p["name"], p["version"], entry) for p in packages for entry in p.get("vulns", ())]
for name, version, entry in vulnerabilities:
    print(f"{name} {version}: {entry['id']}, fixed in {', '.join(entry['fix_versions']) or 'no version yet'}")
unknown = sum("skip_reason" in p for p in packages)
print(f"{len(packages) - unknown} of {len(packages)} locked versions looked up, {len(vulnerabilities)} known vulnerabilities.")
if unknown:
    print(f"{unknown} could not be looked up: this machine's package index does not list vulnerabilities.")
sys.exit(bool(vulnerabilities))
PYTHON
