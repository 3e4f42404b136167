#!/bin/sh
# Pack the package of an earlier version, for the tests that run it over a lake of today's: make_kept_version.sh ac4524d
set -eu
cd "$(dirname "$0")/.."
git archive --format=tar "$1" taxi_platform | gzip -9n > taxi_platform_tests/kept/version_before.tar.gz
ls -l taxi_platform_tests/kept/version_before.tar.gz
