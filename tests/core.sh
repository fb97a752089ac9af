#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Prove the collection with another ansible-core: core.sh VERSION PYTHON [unit | installed], for example core.sh 2.20 3.12.
# `unit` runs the unit tests that are quick, `installed` what a user has, with the light stack.
# Sanity and unit tests, and what a user has: the artifact installed into an empty folder, and site.yml run from there.
# Without that Python on the machine it ends with status 77: not run.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 python=$2
lock=requirements/core-$version.txt
artifact=.build/core-$version

real=
for candidate in $(type -ap "python$python") "$(pyenv root 2>/dev/null || true)"/versions/"$python".*/bin/python; do
  "$candidate" -c '' 2>/dev/null && real=$candidate && break
done
[[ -n $real ]] || { echo "There is no Python $python here, which ansible-core $version needs." >&2; exit 77; }

environment=$NEURONOPS_CACHE/python/$({ cat "$lock"; "$real" --version; } | sha256sum | cut -c1-16)
[[ -e $environment/.complete ]] || requirements/install.sh "$real" "$environment" "$lock"
export PATH=$environment/bin:$PATH
ansible --version | sed -n 1p

if [[ ${3:-} == unit ]]; then
  # What is of the repository, and not of what a user installs, is the same with every ansible-core.
  repository=(sandbox test_documents.py test_troubleshooting.py test_github.py test_run.py test_tree.py)
  exec pytest --quiet tests/unit "${repository[@]/#/--ignore=tests/unit/}" -m 'not thorough'
fi

tests/artifact.sh "$artifact"
stack=light
if [[ ${3:-} != installed ]]; then
  stack=
  tests/sanity.sh "$artifact"
  # The tests of the sandbox need more than an ansible-core.
  pytest --quiet tests/unit --ignore tests/unit/sandbox
fi
tests/installed.sh "$artifact" "$stack"
