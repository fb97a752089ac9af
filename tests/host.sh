# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# Sourced: start_host NAME starts a bare host of the sandbox, which goes when the script ends.

start_host() {
  # shellcheck disable=SC2064  # the name of now
  trap "docker rm --force --volumes '$1' >/dev/null" EXIT
  docker run --detach --name "$1" --network "$NEURONOPS_SANDBOX_NAME" --cgroupns=private --cap-add SYS_ADMIN \
    --security-opt seccomp=unconfined --tmpfs /run --tmpfs /run/lock --tmpfs /tmp:exec --tmpfs /sys/module \
    --volume "$NEURONOPS_SANDBOX_STATE/hardware/inf2.xlarge:/sys/bus/pci/devices:ro" \
    --volume "$NEURONOPS_CACHE/uv:/root/.cache/uv" --volume "$NEURONOPS_CACHE/pip:/root/.cache/pip" \
    "$NEURONOPS_SANDBOX_NAME:debian12" >/dev/null
}

# twice LOG COMMAND ...: the first run changes something, the second nothing.
twice() {
  local log=$1
  shift
  "$@" |& tee "$log.first"
  "$@" |& tee "$log.second"
  grep -qE 'changed=[1-9]' "$log.first" || { echo "The first run changed nothing." >&2; return 1; }
  ! grep -qE 'changed=[1-9]' "$log.second" || { echo "The second run changed something." >&2; return 1; }
}
