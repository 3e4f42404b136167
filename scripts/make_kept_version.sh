#!/bin/sh
# Pack the package of an earlier version with its locked dependencies, for the tests that run it over homes and lakes of
# today's: make_kept_version.sh 447be77
set -eu
cd "$(dirname "$0")/.."
kept=taxi_platform_tests/kept/version_$1.tar.xz
git archive --format=tar "$1" taxi_platform requirements.lock | xz -9e > "$kept"
ls -l "$kept"
