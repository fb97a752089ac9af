#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Install the artifact of tests/artifact.sh into an empty folder, as a Galaxy user does, and run neuronops.vllm.site from
# there, with no configuration of the checkout: installed.sh FOLDER [ROLE...]. With roles, it is a play of these alone.
# Facts are not injected, and what our own content uses of what ansible-core deprecates is a failure. (amazon.aws comes
# with the `ansible` package.)
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/host.sh
cd "$1"
roles=("${@:2}")

export ANSIBLE_COLLECTIONS_PATH=$PWD/collections ANSIBLE_DEPRECATION_WARNINGS=true ANSIBLE_INJECT_FACT_VARS=false
export ANSIBLE_PIPELINING=true # one `docker exec` for a task in place of five
ansible-galaxy collection install --no-deps neuronops-vllm-*.tar.gz
host=$NEURONOPS_SANDBOX_NAME-installed-$(basename "$1" | tr . -)
start_host "$host"
mkdir -p empty && cd empty

for type in module filter lookup role; do
  names=$(ansible-doc --type "$type" --list neuronops.vllm | grep -o 'neuronops\.vllm\.[a-z_]*' | sort --unique)
  [[ -n $names ]] || { echo "ansible-doc lists no $type." >&2; exit 1; }
  for name in $names; do
    [[ $(ansible-doc --type "$type" "$name") == *"$name"* ]] || { echo "ansible-doc shows nothing of $name." >&2; exit 1; }
  done
done

printf '[neuron]\n%s ansible_connection=community.docker.docker\n' "$host" >hosts
run() { twice "$1" ansible-playbook "$1" --inventory hosts --extra-vars "@$NEURONOPS_SANDBOX_STATE/vars.yml"; }
if ((${#roles[@]})); then
  printf -- '- hosts: neuron\n  become: true\n  gather_facts: false\n  roles: [%s]\n' \
    "$(printf 'neuronops.vllm.%s, ' "${roles[@]}")" >roles.yml
  run roles.yml
else
  run neuronops.vllm.site
  docker exec "$host" curl --silent --fail http://127.0.0.1:8000/v1/models
fi
if grep -hA5 'DEPRECATION WARNING' ./*.first ./*.second | grep -i neuronops | grep -v 'TASK \['; then
  echo "Our own content uses what this ansible-core deprecates; see above." >&2
  exit 1
fi
