#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Make an environment from a lock: install.sh INTERPRETER FOLDER LOCK. The marker .complete is written last.
set -euo pipefail
python3=$1 folder=$2 lock=$3
# Not what the caller's shell has set: programs' messages are read below, and other users read what is made.
unset PYTHONPATH PYTHONHOME PYTHONUSERBASE PIP_REQUIRE_VIRTUALENV PIP_TARGET PIP_PREFIX PIP_USER
export LC_ALL=C.UTF-8
umask 022

. "$(dirname "$0")/apt.sh"

command -v git >/dev/null || apt_install git
command -v "$python3" >/dev/null || apt_install python3
# The oldest ansible-core is proven on the oldest Python that it runs on; the tools of development want a newer one.
oldest=11
[[ $(basename "$lock") != core-2.17.txt ]] || oldest=10
"$python3" -c "import sys; sys.exit(sys.version_info < (3, $oldest))" ||
  die "$("$python3" --version) is too old here: Python 3.$oldest or newer is needed. Name one: make PYTHON3=python3.11 ..."
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
