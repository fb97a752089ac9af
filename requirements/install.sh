#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Make an environment from a lock: install.sh INTERPRETER FOLDER LOCK. The marker .complete is written last.
set -euo pipefail
python3=$1 folder=$2 lock=$3

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

command -v git >/dev/null || apt_install git
command -v "$python3" >/dev/null || apt_install python3
"$python3" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$("$python3" --version) is too old for the controller: Python 3.11 or newer is needed. Name one: make PYTHON3=python3.11 ..."
"$python3" -c 'import ensurepip' 2>/dev/null ||
  apt_install "python$("$python3" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"

echo "Making the Python environment in $folder (once for each version of $lock) ..." >&2
rm -rf "$folder"
"$python3" -m venv "$folder"
# uv installs; the first one comes by pip, with the version and hashes of the development lock.
sed -n '/^uv==/,/^[^ ]/p' "$(dirname "$0")/dev.txt" | sed '$d' >"$folder/uv.txt"
"$folder/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$folder/uv.txt"
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --require-hashes --requirement "$lock"
touch "$folder/.complete"
