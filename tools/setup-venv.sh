#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Put the pinned tools of requirements-dev.txt into .venv, unless they are there.
set -eu

cd "$(dirname "$0")/.."
stamp=.venv/.requirements
cmp -s requirements-dev.txt "$stamp" && exit 0

echo "setup: installing requirements-dev.txt into .venv"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
cp requirements-dev.txt "$stamp"
