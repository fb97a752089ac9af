#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Install the artifact of tests/artifact.sh into an empty folder, as a Galaxy user does, and run neuronops.vllm.site from
# there, with no configuration of the checkout: installed.sh FOLDER [light]. `light` takes sandbox/light.yml in place of the
# default stack, and is much quicker. (amazon.aws comes with the `ansible` package.)
# Facts are not injected, and what our own content uses of what ansible-core deprecates is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/host.sh
stack=()
[[ ${2:-} == light ]] && stack=(--extra-vars "@$PWD/sandbox/light.yml" --extra-vars neuron_stack=light-1)
cd "$1"

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
    # The roles that only others use have no options of their own, and newer versions list them all the same.
    [[ $type:$name =~ ^role:neuronops\.vllm\.(options|neuron_packages)$ ]] && continue
    [[ $(ansible-doc --type "$type" "$name") == *"$name"* ]] || { echo "ansible-doc shows nothing of $name." >&2; exit 1; }
  done
done

printf '[neuron]\n%s ansible_connection=community.docker.docker\n' "$host" >hosts
twice site ansible-playbook neuronops.vllm.site --inventory hosts \
  --extra-vars "@$NEURONOPS_SANDBOX_STATE/vars.yml" "${stack[@]}"
docker exec "$host" curl --silent --fail http://127.0.0.1:8000/v1/models
if grep -A5 'DEPRECATION WARNING' site.* | grep -i neuronops | grep -v 'TASK \['; then
  echo "Our own content uses what this ansible-core deprecates; see above." >&2
  exit 1
fi
