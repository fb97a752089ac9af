#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# `ansible-test sanity` over what tests/artifact.sh unpacked in FOLDER, with the ansible-core on PATH: sanity.sh FOLDER.
set -euo pipefail
cd "$(dirname "$0")/.."

# ansible-test downloads a script that installs pip into its environments. The pip that comes with Python serves as well,
# and is there where only a package index can be reached.
cache=~/.ansible/test/cache
mkdir -p "$cache"
for name in $(python - <<'PY'
import re, pathlib, ansible_test._internal.python_requirements as requirements
source = pathlib.Path(requirements.__file__).read_text()
print(*(f"get_pip_{version.replace('.', '_')}.py" for version in set(re.findall(r"\bpip='([0-9.]+)'", source))))
PY
); do
  [[ -e $cache/$name ]] || printf 'import ensurepip\n\nensurepip.bootstrap()\n' >"$cache/$name"
done

# pyenv's shims answer to the names of interpreters that they then do not start: put the real ones in their place.
if command -v pyenv >/dev/null; then
  shims=$(pyenv root)/shims
  PATH=$(tr ':' '\n' <<<"$PATH" | grep -vxF "$shims" | paste -sd:)
  for folder in "$(dirname "$shims")"/versions/*/bin; do PATH+=:$folder; done
fi

cd "$1/ansible_collections/neuronops/vllm"
ansible-test sanity --color no --python default
