# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# Install a program with apt, as root; for other scripts to read.

die() { echo "$*" >&2; exit 1; }

# A new machine updates itself after its first start, and holds apt's locks for a while.
apt() {
  local said
  for _ in {1..120}; do
    said=$(DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" 2>&1) && return
    [[ $said == *"Could not get lock"* || $said == *"Unable to acquire"* ]] || break
    sleep 5
  done
  die "apt-get $* failed: $said"
}

apt_install() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null ||
    die "$1 is missing, and only root on Debian or Ubuntu can have it installed here. Install it and try again."
  echo "Installing $1 ..." >&2
  apt update
  apt -y install --no-install-recommends "$1"
}
