#!/usr/bin/env bash
# Install what Holdfast needs, and say so before. Repeatable: what is there already is left alone,
# and a run with nothing to do takes about a second.
# `setup.sh demo` is content with less: without root it installs no Debian packages, and without
# libvirt's headers it leaves libvirt-python away. The demo then uses hosts without hardware.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# libvirt, QEMU and fence agents are what the engine drives, OpenSSH's client restarts a libvirtd
# that hangs, its server lets it in on the lab's hosts; PostgreSQL and MariaDB are
# for the store's tests (the server alone, without the package that starts it as a service);
# a compiler and headers build libvirt-python, which has no wheels.
PACKAGES=(libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients libvirt-dev
  qemu-system-x86 qemu-utils ipmitool fence-agents busybox-static cpio iproute2
  openssh-client openssh-server procps
  pkg-config gcc python3-dev postgresql mariadb-server-core mariadb-client)
FOR="${1:-all}"
GUEST_KERNEL=linux-image-cloud-amd64

say() { printf '==> %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "this needs root and there is no sudo; as root run: $*"
  fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 "$@"; }

update_package_lists() {
  say "fetching Debian's package lists"
  apt update >/dev/null
}

find_python() {
  local python
  for python in "${HOLDFAST_PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$python"
      return
    fi
  done
  fail "Python 3.11 or newer is needed: install it, or point HOLDFAST_PYTHON at it"
}

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

install_packages() {
  local package missing=()
  if [ "$FOR" = demo ] && [ "$(id -u)" -ne 0 ]; then
    say "this is not root: no Debian packages are installed, and the demo's hosts are virtual"
    return
  fi
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "this is no Debian: make sure that you have what Debian calls ${PACKAGES[*]}"
    return
  fi
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || PACKAGES+=(python3-venv)
  for package in "${PACKAGES[@]}"; do
    is_installed "$package" || missing+=("$package")
  done
  if [ "${#missing[@]}" -eq 0 ]; then
    return
  fi
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    fail "packages are missing, and this is not root and has no sudo; as root run:" \
      "apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  say "installing Debian packages: ${missing[*]}"
  update_package_lists
  apt install -y --no-install-recommends "${missing[@]}" |
    sed -u -n 's/^Setting up \([^ ]*\).*/    \1/p'
}

# A stamp holds what a step was done for; another content means that it has to be done again.
is_done() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

make_environment() {
  local stamp=.venv/.lock-installed wanted lock=requirements.lock
  wanted="$("$PYTHON" --version) $(sha256sum <requirements.lock)"
  if is_done "$stamp" "$wanted"; then
    return
  fi
  if [ "$FOR" = demo ] && ! pkg-config --exists libvirt 2>/dev/null; then
    wanted="$wanted without libvirt-python"
    if is_done "$stamp" "$wanted"; then
      return
    fi
    say "libvirt's headers are missing: libvirt-python is left away"
    lock=$(mktemp)
    # Its entry ends with the first line that is not continued.
    awk '/^libvirt-python==/ { skip = 1 } !skip { print } skip && !/\\$/ { skip = 0 }' \
      requirements.lock >"$lock"
  fi
  say "installing the Python packages of requirements.lock into .venv (libvirt-python is compiled)"
  # Leftovers of another lock would hide a missing pin.
  "$PYTHON" -m venv --clear .venv
  .venv/bin/pip install --no-input --disable-pip-version-check --require-hashes \
    -r "$lock" | sed -u -n 's/^Collecting \([^ ]*\).*/    \1/p'
  printf '%s' "$wanted" >"$stamp"
}

link_project() {
  local stamp=.venv/.project-linked wanted
  wanted="$(sha256sum <pyproject.toml) $PWD"
  if is_done "$stamp" "$wanted"; then
    return
  fi
  say "linking Holdfast itself into .venv"
  .venv/bin/pip install --quiet --no-input --disable-pip-version-check --no-deps \
    --config-settings editable_mode=compat -e .
  printf '%s' "$wanted" >"$stamp"
}

get_temporal() {
  say "looking for Temporal"
  .venv/bin/python -m worker.temporal_find
}

lab_is_possible() {
  .venv/bin/python -c 'import sys; from lab.requirements import obstacles; sys.exit(bool(obstacles()))'
}

build_guest() {
  if [ "$FOR" = demo ] && ! lab_is_possible; then
    return
  fi
  if command -v apt-cache >/dev/null && [ ! -e "${HOLDFAST_LAB_CACHE:-${HOLDFAST_VAR:-var}/lab-cache}/manifest.json" ]; then
    say "making the lab's guest: Debian's $GUEST_KERNEL and qemu-guest-agent (28 MB, unpacked, not installed) and busybox"
    apt-cache show "$GUEST_KERNEL" >/dev/null 2>&1 || update_package_lists
  fi
  .venv/bin/python - <<'PYTHON'
import os
import sys
from pathlib import Path

from domain.errors import EngineError
from lab.guest_image import build, cache_folder

try:
    build(cache_folder(Path(os.environ.get("HOLDFAST_VAR") or "var")))
except EngineError as e:
    sys.exit(f"setup: {e}\nWhat to do: {e.next_step}")
PYTHON
}

PYTHON=$(find_python)
install_packages
make_environment
link_project
get_temporal
build_guest
say "ready"
