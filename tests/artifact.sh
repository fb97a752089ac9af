#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Build what Galaxy would get, from what git knows, and unpack it as a git repository for `ansible-test`: artifact.sh FOLDER
# makes FOLDER/*.tar.gz and FOLDER/ansible_collections/neuronops/vllm.
set -euo pipefail
cd "$(dirname "$0")/.."
artifact=$1
copy=$artifact/copy
unpacked=$artifact/ansible_collections/neuronops/vllm

rm -rf "$artifact"
mkdir -p "$copy" "$unpacked"
# Tracked and new files; not one that is deleted and not yet committed.
git ls-files -z --cached --others --exclude-standard |
  while IFS= read -r -d '' file; do [[ -e $file ]] && printf '%s\0' "$file"; done |
  tar --null --files-from - -cf - | tar -xf - -C "$copy"
ansible-galaxy collection build "$copy" --output-path "$artifact"
tar -xzf "$artifact"/neuronops-vllm-*.tar.gz -C "$unpacked"
git -C "$unpacked" init --quiet
git -C "$unpacked" add --all
rm -rf "$copy"

needed='^(\./)?(FILES\.json|MANIFEST\.json|README\.md|LICENSE|CHANGELOG\.rst|SECURITY\.md|changelogs/changelog\.yaml'
needed+='|docs/(versions|launch|releases|faults|state|awx|tutorial|howto|troubleshooting|fleets)\.md|docs/iam/(launch|host|image|pull|targets)-policy\.json'
needed+='|docs/monitoring/((prometheus|rules)\.yml|dashboard\.json)'
needed+='|docs/pull/(user-data\.sh|requirements\.txt|association\.json)'
needed+='|(data|inventories|meta|playbooks|plugins|roles)/.*)$'
if tar -tzf "$artifact"/neuronops-vllm-*.tar.gz | grep -v '/$' | grep -vE "$needed"; then
  echo "The artifact holds the above, which no user needs: name it in build_ignore of galaxy.yml." >&2
  exit 1
fi
