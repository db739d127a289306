#!/usr/bin/env bash
# Pin the dependencies of pyproject.toml anew, with hashes and without naming an index: the lock is
# the same wherever the packages come from. uv lives in an environment that is thrown away.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check uv
# The old lock is the starting point, so that only what has to move moves.
cp requirements.lock "$tools/requirements.lock"
"$tools/bin/uv" pip compile --quiet --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header --all-extras \
  --output-file "$tools/requirements.lock" pyproject.toml
cp "$tools/requirements.lock" requirements.lock
printf 'requirements.lock pins %s packages\n' "$(grep -c '==' requirements.lock)"
