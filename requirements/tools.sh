#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Have programs that stand in Debian packages of the same name: tools.sh PROGRAM ...
set -euo pipefail
. "$(dirname "$0")/apt.sh"

for tool in "$@"; do
  command -v "$tool" >/dev/null || apt_install "$tool"
done
