#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_record
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: Record that a layer of a Python environment, or all of it as a release, is complete
description:
  - Writes the record of a layer into an environment, C(neuronops/LAYER.json), as the last act of the role that made it.
    What has no record is not complete, and is done again.
  - Writes the record of a release, C(neuronops/release.json), with the whole stack and what was recorded of each layer.
  - Files are replaced at once and may be read by everybody. A file that says the same already is left as it is.
options:
  path:
    description: Folder of the environment, or a link to it.
    type: path
    required: true
  layer:
    description: The layer to record. Keys without a value are left out.
    type: dict
    suboptions:
      name:
        description: The layer, which is the name of the role.
        type: str
        required: true
      inputs:
        description: SHA-256 of all that decides on what the layer is.
        type: str
        required: true
      stack:
        description: Name of the stack.
        type: str
        required: true
      packages:
        description: The version of each package of the layer, as it is installed.
        type: dict
        required: true
      files:
        description: SHA-256 of each file that the layer has besides packages, by absolute path.
        type: dict
        default: {}
      proof:
        description: What was done to see that the layer works, in sentences.
        type: list
        elements: str
        default: []
      lock_sha256:
        description: SHA-256 of the lock that was installed.
        type: str
      python:
        description: The interpreter that the environment was made with.
        type: str
      sdk:
        description: Release of the Neuron SDK.
        type: str
      imported:
        description: The modules that were imported.
        type: list
        elements: str
      version:
        description: Version of what was built.
        type: str
      commit:
        description: Commit that it was built from; empty for sources without one.
        type: str
      source:
        description: Where its sources came from, without user and password.
        type: str
      wheel_sha256:
        description: SHA-256 of the wheel that was built.
        type: str
      plugin_version:
        description: Version of the plugin beside it, built from its source or taken from the lock.
        type: str
        version_added: 0.2.0
      plugin_commit:
        description: Commit that the plugin was built from; empty for sources without one.
        type: str
        version_added: 0.2.0
      plugin_source:
        description: Where the plugin's sources came from, without user and password.
        type: str
        version_added: 0.2.0
      plugin_wheel_sha256:
        description: SHA-256 of the plugin's wheel.
        type: str
        version_added: 0.2.0
  release:
    description: The release to record, of all layers that are recorded in the environment.
    type: dict
    suboptions:
      id:
        description: Its name, of letters, digits and C(._+-).
        type: str
        required: true
      stack:
        description: The whole entry of the stack, as the lookup P(neuronops.vllm.stack#lookup) returns it.
        type: dict
        required: true
  layers:
    description:
      - Layers that the release must have. Where the record of one is missing or not understood, the release is refused.
      - In check mode it is not refused, as the roles before have recorded nothing then.
    type: list
    elements: str
    default: []
extends_documentation_fragment: neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: neuronops.vllm.neuron_info
"""

EXAMPLES = r"""
- name: Record that a layer is complete
  neuronops.vllm.release_record:
    path: /opt/neuronops/releases/one
    layer:
      name: vllm
      inputs: "{{ [lock, imports] | to_json | hash('sha256') }}"
      stack: vllm-0.13.0
      packages: "{{ installed.packages }}"
      proof: [vllm_neuron.platform was imported]

- name: Record that the release is complete
  neuronops.vllm.release_record:
    path: /opt/neuronops/releases/one
    release:
      id: one
      stack: "{{ lookup('neuronops.vllm.stack') }}"
    layers: [neuron_venv, nxd_inference, vllm]
"""

RETURN = r"""
written:
  description: Names of the files in C(neuronops) of the environment that were written, or would be in check mode.
  type: list
  elements: str
  returned: success
  sample: [vllm.json, release.json]
release:
  description: >-
    The release as it is recorded; null without O(release), and in check mode where there is none yet.
  type: dict
  returned: success
  contains:
    schema:
      description: Number of the file's schema.
      type: int
    id:
      description: Its name.
      type: str
    stack:
      description: Name of its stack.
      type: str
    completed_at:
      description: When it was recorded for the first time as it is, in UTC.
      type: str
      sample: "2026-11-25T15:30:00Z"
    layers:
      description: Names of its layers.
      type: list
      elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import files, forms, release

TEXT = {"type": "str"}
LAYER = {
    "name": {"type": "str", "required": True},
    "inputs": {"type": "str", "required": True},
    "stack": {"type": "str", "required": True},
    "packages": {"type": "dict", "required": True},
    "files": {"type": "dict", "default": {}},
    "proof": {"type": "list", "elements": "str", "default": []},
    "lock_sha256": TEXT,
    "python": TEXT,
    "sdk": TEXT,
    "imported": {"type": "list", "elements": "str"},
    "version": TEXT,
    "commit": TEXT,
    "source": TEXT,
    "wheel_sha256": TEXT,
    "plugin_version": TEXT,
    "plugin_commit": TEXT,
    "plugin_source": TEXT,
    "plugin_wheel_sha256": TEXT,
}


class RecordError(Exception):
    """Why nothing is recorded; the message says what to do."""


class Records:
    """The records of one environment, and what has to be written of them."""

    def __init__(self, path):
        self.path = os.path.realpath(path)
        self.there, _changed, self.ignored = release.observe_manifests(self.path)
        self.texts = {}  # name of a record -> text to write

    def layer(self, layer):
        """Take a layer as complete."""
        record = release.new_record(layer)
        self.there[record["role"]] = record
        self._want(record["role"], release.as_text(record))

    def release(self, wanted, layers, predicted):
        """Take the layers that there are as a release; return it, or None where check mode can only predict it."""
        lacking = sorted(set(layers) - set(self.there))
        if lacking and not predicted:
            raise RecordError(
                "the layer%s %s %s no record that is understood%s. Run the role of that name on the host, or take the "
                "layer out of the list"
                % (
                    "" if len(lacking) == 1 else "s",
                    ", ".join(lacking),
                    "has" if len(lacking) == 1 else "have",
                    " (%s)" % "; ".join(self.ignored) if self.ignored else "",
                )
            )
        before, _problem = release.observe_release(self.path, self.there)
        new = release.new_release(wanted["id"], wanted["stack"], self.there, release.now())
        if release.same_but_for_the_time(before, new):
            new = before
        self._want(release.RELEASE, release.as_text(new))
        return None if lacking or (predicted and new is not before) else release.summary(new)

    def _want(self, name, text):
        if not release.is_written(release.path_of(self.path, name), text):
            self.texts[name] = text

    def difference(self):
        """Return what --diff shows."""
        return [
            {
                "before": _text(release.path_of(self.path, name)),
                "after": text,
                "before_header": release.path_of(self.path, name),
                "after_header": release.path_of(self.path, name),
            }
            for name, text in self.texts.items()
        ]

    def write(self):
        for name, text in self.texts.items():
            release.put(release.path_of(self.path, name), text)


def _text(path):
    try:
        return files.content(path)
    except (OSError, ValueError):
        return ""


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "layer": {"type": "dict", "options": LAYER},
            "release": {
                "type": "dict",
                "options": {"id": {"type": "str", "required": True}, "stack": {"type": "dict", "required": True}},
            },
            "layers": {"type": "list", "elements": "str", "default": []},
        },
        required_one_of=[("layer", "release")],
        supports_check_mode=True,
    )
    path, wanted = module.params["path"], module.params["release"]
    try:
        if not module.check_mode and not os.path.isdir(os.path.join(path, "bin")):
            raise RecordError("there is no environment. The role neuronops.vllm.neuron_venv makes it")
        records = Records(path)
        if module.params["layer"]:
            records.layer(module.params["layer"])
        found = wanted and records.release(wanted, module.params["layers"], module.check_mode)
        difference = records.difference()
        if not module.check_mode:
            records.write()
    except (RecordError, forms.FormError) as error:
        module.fail_json(msg="Nothing was recorded in %s: %s." % (path, error))
    except OSError as error:
        module.fail_json(
            msg="What is complete could not be recorded in %s: %s. What was recorded before is whole." % (path, error)
        )
    module.exit_json(
        changed=bool(records.texts),
        written=[name + ".json" for name in records.texts],
        release=found,
        diff=difference,
    )


if __name__ == "__main__":
    main()
