#!/usr/bin/env bash
# Run every check and every test. All stages run even if one fails, so that one run tells
# everything; the exit code is that of the first that failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The tests start hundreds of interpreters: compiled once, each comes up a fifth faster.
unset PYTHONDONTWRITEBYTECODE

failed=0
failures=()
said=$(mktemp)
trap 'rm -f "$said"' EXIT

stage() {
  local name=$1 started=$SECONDS code=0
  shift
  printf '\n==> %s\n' "$name"
  # With what it says kept: which tests failed, and why, is said once more at the end, since a long
  # log is often cut in its middle.
  "$@" 2>&1 | tee "$said" || code=$?
  if [ "$code" -ne 0 ]; then
    failures+=("$name (exit $code after $((SECONDS - started)) s)")
    mapfile -t -O "${#failures[@]}" failures < <(grep -aE '^(FAILED|ERROR) ' "$said" | head -n 40)
    [ "$failed" -ne 0 ] || failed=$code
  fi
}

cores=$(nproc)
workers=$((cores < 4 ? cores : 4))

stage "style, types and import rules" make --no-print-directory lint
stage "unit, store, workflow and replay tests" \
  .venv/bin/pytest -n "$workers" --dist loadfile --no-loadscope-reorder --durations 25 -m "not lab"
# One after the other: lab tests watch real time-outs, which a busy neighbour would stretch.
stage "lab tests" .venv/bin/pytest --durations 10 -m lab

if [ "$failed" -ne 0 ]; then
  printf 'failed: %s\n' "${failures[@]}" >&2
fi
exit "$failed"
