#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Check the artifact of tests/artifact.sh as Galaxy does on import: galaxy_importer.sh FOLDER. An error or a warning fails.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=requirements/galaxy-importer.txt
environment=$NEURONOPS_CACHE/python/$(sha256sum "$lock" | cut -c1-16)
[[ -e $environment/.complete ]] || requirements/install.sh python3 "$environment" "$lock"

PATH=$environment/bin:$PATH
cd "$1"
python -m galaxy_importer.main neuronops-vllm-*.tar.gz | tee importer.log
if grep -E '^(ERROR|WARNING)' importer.log; then
  echo "galaxy-importer found the above." >&2
  exit 1
fi
