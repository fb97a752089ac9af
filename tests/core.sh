#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Prove the collection with another ansible-core: core.sh VERSION PYTHON, for example core.sh 2.20 3.12.
# Sanity and unit tests on the unpacked artifact, and one converge of the driver's role on a host of the sandbox, run twice.
# Without that Python on the machine it ends with status 77: not run.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/host.sh
version=$1 python=$2
lock=requirements/core-$version.txt

real=
for candidate in $(type -ap "python$python") "$(pyenv root 2>/dev/null || true)"/versions/"$python".*/bin/python; do
  "$candidate" -c '' 2>/dev/null && real=$candidate && break
done
[[ -n $real ]] || { echo "There is no Python $python here, which ansible-core $version needs." >&2; exit 77; }

environment=$NEURONOPS_CACHE/python/$({ cat "$lock"; "$real" --version; } | sha256sum | cut -c1-16)
[[ -e $environment/.complete ]] || requirements/install.sh "$real" "$environment" "$lock"
export PATH=$environment/bin:$PATH
ansible --version | sed -n 1p

root=$PWD
tests/artifact.sh ".build/core-$version"
tests/sanity.sh ".build/core-$version"

# The tests of the sandbox need more than an ansible-core.
pytest --quiet tests/unit --ignore tests/unit/sandbox_repositories --ignore tests/unit/test_sandbox.py

# Deprecations of our own content are failures; a host is made and removed for this alone.
host=$NEURONOPS_SANDBOX_NAME-core-${version//./-}
export ANSIBLE_COLLECTIONS_PATH=$root/.build/core-$version ANSIBLE_CONFIG=$root/ansible.cfg
export ANSIBLE_DEPRECATION_WARNINGS=true ANSIBLE_INJECT_FACT_VARS=false
start_host "$host"
printf -- '- hosts: all\n  gather_facts: false\n  roles: [neuronops.vllm.neuron_driver]\n' >".build/core-$version/play.yml"
twice ".build/core-$version/log" ansible-playbook ".build/core-$version/play.yml" --inventory "$host," \
  --connection community.docker.docker --extra-vars "@$NEURONOPS_SANDBOX_STATE/vars.yml"
if grep -A3 'DEPRECATION WARNING' ".build/core-$version"/log.* | grep -i neuronops; then
  echo "Our own content uses what ansible-core $version deprecates; see above." >&2
  exit 1
fi
