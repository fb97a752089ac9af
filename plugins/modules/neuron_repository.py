#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set up the repository of the AWS Neuron packages."""

from __future__ import annotations

DOCUMENTATION = r"""
module: neuron_repository
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Set up the AWS Neuron package repository with a verified key
description:
  - Fetches the key that signs the repository, compares its fingerprint before anything trusts it, and installs that key
    alone, for this repository alone.
  - Fetches the key again when the installed copy has expired or is about to. AWS gave its key a new end in 2022 under
    the same fingerprint, so that a copy that is "already there" may be the expired one.
  - Replaces what other set-ups left, such as C(apt-key) and C(neuron.list) from AWS's documentation, in the same step.
  - Nothing is changed when the key cannot be had, has another fingerprint, is revoked or has expired.
  - Needs neither C(gpg) nor C(apt-key) on the host.
options:
  state:
    description: Whether the repository is to be set up or taken off, with its key.
    type: str
    choices: [present, absent]
    default: present
  manager:
    description: The host's package manager.
    type: str
    choices: [apt, dnf]
    required: true
  url:
    description: Address of the repository, of AWS or of a mirror; C(file:///) names a folder on the host.
    type: str
    required: true
  suite:
    description: Suite of the repository, for example C(jammy); only for apt, and required there.
    type: str
  components:
    description: Components of the suite; only for apt.
    type: list
    elements: str
    default: [main]
  fingerprint:
    description: Fingerprint of the key that signs the repository, 40 hexadecimal digits; spaces do not matter.
    type: str
    required: true
  key:
    description:
      - Where the key is. An address (C(https), C(http), or C(file) for a file on the host), or the armoured key itself.
      - Required to set the repository up.
    type: str
  renew_days:
    description:
      - How many days before its end the key is fetched again.
      - When that fails and the installed key still holds, there is a warning and no failure.
    type: int
    default: 30
attributes:
  async:
    description: Its answer is checked on the controller, past which C(async) would take it.
    support: none
  check_mode:
    description: Says what would change. The key is fetched and verified, and not installed.
    support: full
  diff_mode:
    description: Shows the repository's file, and which files of other set-ups change.
    support: full
notes:
  - Only keys of version 4, of RSA or Ed25519, are understood, as AWS's is.
seealso:
  - module: neuronops.vllm.neuron_info
"""

EXAMPLES = r"""
- name: Set up the repository on Ubuntu 22.04
  neuronops.vllm.neuron_repository:
    manager: apt
    url: https://apt.repos.neuron.amazonaws.com
    suite: jammy
    key: https://apt.repos.neuron.amazonaws.com/GPG-PUB-KEY-AMAZON-AWS-NEURON.PUB
    fingerprint: 00FA 2C10 7926 0870 A76D 2C28 5749 CAD8 646D 9185

- name: Use a mirror, and a copy of the key on the controller
  neuronops.vllm.neuron_repository:
    manager: apt
    url: https://mirror.example.com/neuron
    suite: jammy
    key: "{{ lookup('ansible.builtin.file', 'neuron.asc') }}"
    fingerprint: 00FA 2C10 7926 0870 A76D 2C28 5749 CAD8 646D 9185
"""

RETURN = r"""
reasons:
  description: What was not as wanted, in sentences.
  returned: always
  type: list
  elements: str
key:
  description: >-
    The installed key, with C(fingerprint), C(user_ids), C(expires), C(expired), C(expires_soon) and C(revoked).
  returned: when there is one
  type: dict
backups:
  description: Copies of the files of others that were changed or removed, which only root reads.
  returned: always
  type: list
  elements: str
  sample: [/var/lib/neuronops/replaced/etc__apt__sources.list.d__neuron.list.1]
paths:
  description: The files that were written, changed or removed.
  returned: always
  type: list
  elements: str
"""

import os
import time
import urllib.error

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as UrlError
from ansible.module_utils.urls import SSLValidationError, open_url
from ansible_collections.neuronops.vllm.plugins.module_utils import openpgp, repository
from ansible_collections.neuronops.vllm.plugins.module_utils.files import write_at_once

# Copies of what others wrote; apt and dnf read nothing there.
REPLACED = "/var/lib/neuronops/replaced"
LONGEST_KEY = 1 << 20  # bytes; AWS's has about 2 KB


class KeyRefusedError(Exception):
    """The key must not be trusted, or cannot be had."""


class KeyUnreachableError(KeyRefusedError):
    """The key could not be fetched: a matter of the network, not of trust."""


def fetch(key):
    """Return the bytes of the key that option `key` names."""
    if not key:
        raise KeyRefusedError("no key is given; set `key` to its address")
    if "-----BEGIN PGP" in key:
        return key.encode()
    try:
        return open_url(key, timeout=30).read(LONGEST_KEY)
    except (OSError, ValueError, UrlError, SSLValidationError, urllib.error.URLError) as error:
        raise KeyUnreachableError(
            "it cannot be fetched from {0}: {1}. Is the address right, and does the host reach it, through a proxy "
            "where it needs one? The key can also be given as text or as a file (file:///)".format(key, error)
        ) from error


def verified(data, wanted, now):
    """Return the one key with the wanted fingerprint, or raise KeyRefusedError."""
    try:
        keys = openpgp.public_keys(data)
    except openpgp.OpenPGPError as error:
        raise KeyRefusedError("what was fetched is no key: {0}".format(error)) from error
    match = next((key for key in keys if key["fingerprint"] == wanted), None)
    if match is None:
        raise KeyRefusedError(
            "its fingerprint is {0} and should be {1}. "
            "Trust another one only after you have it from a second source".format(
                ", ".join(key["fingerprint"] for key in keys), wanted
            )
        )
    if match["revoked"]:
        raise KeyRefusedError("its owner has revoked it")
    if match["expires"] and match["expires"] <= now:
        raise KeyRefusedError(
            "it expired on {0}, and so has the copy on the server. A renewed one has the same fingerprint: "
            "give its address".format(time.strftime("%Y-%m-%d", time.gmtime(match["expires"])))
        )
    return match


def open_for_others(path, mode):
    """Give a file or folder that others must read its mode, whatever the umask was."""
    if os.stat(path).st_mode & 0o7777 != mode:
        os.chmod(path, mode)


def write(path, content, own):
    """Replace a file at once, or remove it where content is None; a file of our own is for everybody to read."""
    if content is None:
        if os.path.lexists(path):
            os.unlink(path)
        return
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder)
    if own or not os.path.exists(path):
        write_at_once(path, content)
    else:
        status = os.stat(path)
        owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
        write_at_once(path, content, status.st_mode & 0o7777, owner)
    if own:
        open_for_others(folder, os.stat(folder).st_mode & 0o7777 | 0o755)


def keep_copy(path):
    """Copy a file of somebody else before it changes, for root alone, and return where the copy is."""
    os.makedirs(REPLACED, mode=0o700, exist_ok=True)
    name = os.path.join(REPLACED, path.strip("/").replace("/", "__"))
    number = 1
    while os.path.lexists("{0}.{1}".format(name, number)):
        number += 1
    copy = "{0}.{1}".format(name, number)
    write_at_once(copy, existing(path) or b"", 0o600)
    return copy


def present(module, wanted, place):
    """Return (changes: {path: content}, difference)."""
    now = time.time()
    difference = repository.compare(wanted, now=now)
    changes = {}
    if difference["key_needed"]:
        try:
            key = verified(fetch(module.params["key"]), repository.fingerprint(wanted["fingerprint"]), now)
        except KeyRefusedError as refusal:
            still_good = difference["key"] and not difference["key"]["expired"] and not difference["key"]["revoked"]
            if not still_good:
                fault = "cannot be had" if isinstance(refusal, KeyUnreachableError) else "is not to be trusted"
                module.fail_json(
                    msg="The key of the Neuron repository {0} {1}, and nothing was changed: {2}.".format(
                        wanted["url"], fault, refusal
                    ),
                    **report(difference, {}),
                )
            module.warn(
                "The key of the Neuron repository ends on {0}, and {1}.".format(difference["key"]["expires"], refusal)
            )
        else:
            content = repository.keyring(key, wanted["manager"])
            if content != existing(place["keyring"]):
                changes[place["keyring"]] = content
            difference["key"] = repository.describe(key, now, wanted["renew_days"])
    if difference["source_needed"]:
        changes[place["source"]] = repository.source_text(wanted).encode()
    for path in difference["closed"]:  # written again as they are, for all to read
        changes.setdefault(path, existing(path))
    changes.update(difference["leftovers"])
    return changes, difference


def absent(place):
    changes = {path: None for path in place.values() if os.path.lexists(path)}
    return changes, {"reasons": ["{0} is there".format(path) for path in sorted(changes)], "key": None}


def existing(path):
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None


def report(difference, changes):
    return {"reasons": difference["reasons"], "key": difference["key"], "paths": sorted(changes)}


def text(content):
    """Return a file's content for a diff; a binary keyring is named by the keys in it, or by how much there is."""
    if content is None:
        return ""
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        pass
    try:
        return "".join("key {0}\n".format(key["fingerprint"]) for key in openpgp.public_keys(content))
    except openpgp.OpenPGPError:
        return "{0} bytes that are not text\n".format(len(content))


def main():
    spec = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "key": {"type": "str", "no_log": False},
    }
    module = AnsibleModule(
        argument_spec={**repository.OPTIONS, **spec},
        required_if=[("manager", "apt", ["suite"]), ("state", "present", ["key"])],
        supports_check_mode=True,
    )
    wanted, place = module.params, repository.PLACES[module.params["manager"]]
    try:
        changes, difference = present(module, wanted, place) if wanted["state"] == "present" else absent(place)
    except ValueError as error:
        module.fail_json(msg=str(error))
    result = report(difference, changes)
    result["diff"] = [
        {"before_header": path, "after_header": path, "before": text(existing(path)), "after": text(changes[path])}
        for path in sorted(changes)
    ]
    result["backups"] = []
    if not module.check_mode:
        # The key comes first and goes last: no file must ever name a key that is not there.
        key_last = wanted["state"] == "absent"
        for path in sorted(changes, key=lambda path: (path == place["keyring"]) == key_last):
            own = path in place.values()
            try:
                if not own:
                    result["backups"].append(keep_copy(path))
                write(path, changes[path], own)
            except OSError as error:
                module.fail_json(
                    msg="{0} cannot be written: {1}. It is as it was; other files of `paths` may be changed "
                    "already. Run again when the cause is gone.".format(path, error),
                    **result,
                )
    module.exit_json(changed=bool(changes), **result)


if __name__ == "__main__":
    main()
