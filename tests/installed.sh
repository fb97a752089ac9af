#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Install the artifact of tests/artifact.sh into an empty folder, as a Galaxy user does, and run neuronops.vllm.site from
# there, with no configuration of the checkout: installed.sh FOLDER. (amazon.aws comes with the `ansible` package.)
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/host.sh
cd "$1"

export ANSIBLE_COLLECTIONS_PATH=$PWD/collections
ansible-galaxy collection install --no-deps neuronops-vllm-*.tar.gz
host=$NEURONOPS_SANDBOX_NAME-installed
start_host "$host"
mkdir -p empty && cd empty
printf '[neuron]\n%s ansible_connection=community.docker.docker\n' "$host" >hosts
twice site ansible-playbook neuronops.vllm.site --inventory hosts \
  --extra-vars "@$NEURONOPS_SANDBOX_STATE/vars.yml"
for role in neuron_driver neuron_venv transformers_neuronx vllm vllm_server; do
  ansible-doc --type role "neuronops.vllm.$role" >/dev/null
done
docker exec "$host" curl --silent --fail http://127.0.0.1:8000/v1/models
