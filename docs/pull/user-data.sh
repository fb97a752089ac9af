#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# User data of an instance that makes itself, with no controller (docs/fleets.md). cloud-init runs it once, as root, and
# keeps what it says in /var/log/cloud-init-output.log; `sudo neuronops-pull` repeats the run of the playbook.
set -euo pipefail

# --- What is yours -----------------------------------------------------------------------------------------------------
state=s3://my-bucket/neuronops
region=us-east-1
artifact=neuronops-vllm-0.1.0.tar.gz
sha256=0000000000000000000000000000000000000000000000000000000000000000
# -----------------------------------------------------------------------------------------------------------------------

fail() {
  echo "neuronops: $1" >&2
  exit 1
}
home=/opt/neuronops-pull
mkdir -p "$home/group_vars"
cd "$home"

# The system's Python reads the bucket, as there is no other program for it yet.
apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 "$@" >apt.log 2>&1 ||
    fail "apt-get $* failed on $(hostname). It said: $(tail -n 3 apt.log). See that the subnet has a way to Ubuntu's mirrors."
}
apt update
apt -y install python3-boto3 python3-venv

cat >settings <<END
export HOME=/root AWS_REGION=$region AWS_DEFAULT_REGION=$region
END
. ./settings

cat >fetch <<END
#!/usr/bin/python3
"""Fetch a file of the bucket: fetch NAME TARGET."""
import os
import sys
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

place = urlsplit("$state")
name, target = sys.argv[1:]
key = f"{place.path}/pull/{name}".lstrip("/")
try:
    # A boto3 of the system may be too old to look at that variable by itself.
    client = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
    client.download_file(place.netloc, key, f"{target}.new")
except (BotoCoreError, ClientError) as error:
    sys.exit(
        f"neuronops: s3://{place.netloc}/{key} cannot be read: {error}. See that it is there, and that the instance's "
        "profile has the statements of docs/iam/pull-policy.json for this bucket."
    )
os.replace(f"{target}.new", target)
END
chmod 0755 fetch

./fetch "$artifact" collection.tar.gz
echo "$sha256  collection.tar.gz" | sha256sum --check --status ||
  fail "$state/pull/$artifact has the SHA-256 $(sha256sum collection.tar.gz | cut -c1-64), not $sha256. Nothing of it was run."

# What Ansible itself needs, each package by its hash.
tar -xzf collection.tar.gz --to-stdout docs/pull/requirements.txt >requirements.txt
[[ -e venv/bin/pip ]] || python3 -m venv venv
venv/bin/pip --quiet --disable-pip-version-check install --require-hashes --requirement requirements.txt ||
  fail "the packages of $home/requirements.txt could not be installed on $(hostname); pip says why above."
venv/bin/ansible-galaxy collection install --no-deps --force --collections-path "$home/collections" ./collection.tar.gz

printf '[neuron]\nlocalhost ansible_connection=local\n[neuron:vars]\nneuron_state=%s\n' "$state" >hosts
cat >/usr/local/sbin/neuronops-pull <<END
#!/bin/bash
# Bring this host to what the bucket says: neuronops-pull [OPTION OF ansible-playbook ...], for example --check.
set -euo pipefail
umask 077
cd $home
. ./settings
exec 9>run.lock
flock --timeout 7200 9 || { echo "neuronops: another run is at work on this host for two hours; see what it does." >&2; exit 1; }
./fetch variables.yml group_vars/neuron.yml
export ANSIBLE_COLLECTIONS_PATH=$home/collections
venv/bin/ansible-playbook neuronops.vllm.site --inventory hosts "\$@"
END
chmod 0755 /usr/local/sbin/neuronops-pull
exec /usr/local/sbin/neuronops-pull
