#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pip_configuration
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Tell the pip of a Python environment where to find packages
description:
  - Sets options of the section C(global) of C(pip.conf) in an environment, as C(pip config --site set) does, for
    people who use that pip by hand. Everything else in the file stays as it is.
options:
  path:
    description: Folder of the environment, or a link to it.
    type: path
    required: true
  extra_index_urls:
    description: Indexes to ask besides the main one. They are added to what is in the file, each once.
    type: list
    elements: str
    default: []
  options:
    description: Further options and the value of each; an option with an empty value is left alone.
    type: dict
    default: {}
extends_documentation_fragment: neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Let pip find the Neuron packages
  neuronops.vllm.pip_configuration:
    path: /opt/aws_neuron_venv_pytorch
    extra_index_urls: [https://pip.repos.neuron.amazonaws.com]
"""

RETURN = r"""
files:
  description: The SHA-256 of the file as it is, or would be in check mode.
  type: dict
  returned: success
  sample: {/opt/aws_neuron_venv_pytorch/pip.conf: 0f343b0931126a20f133d67c2b018a3b}
"""

import hashlib
import os
import re

from ansible.module_utils.basic import AnsibleModule

SECTION = re.compile(r"^\s*\[([^\]]+)\]")


def span(lines, option):
    """Return (first line, line after the last) of an option in [global], or None; its value may go on, indented."""
    section = None
    for number, line in enumerate(lines):
        header = SECTION.match(line)
        if header:
            section = header.group(1).strip()
        elif section == "global" and re.match(r"%s\s*[=:]" % re.escape(option), line, re.IGNORECASE):
            end = number + 1
            while end < len(lines) and lines[end][:1].isspace() and lines[end].strip():
                end += 1
            return number, end
    return None


def value(lines, option):
    """Return the words of an option's value."""
    found = span(lines, option)
    if not found:
        return []
    text = " ".join(lines[found[0] : found[1]])
    return re.split(r"[=:]", text, maxsplit=1)[1].split()


def set_option(lines, option, words):
    """Return the lines with an option of [global] set, several words in a line each."""
    new = ["%s = %s" % (option, words[0])] if len(words) == 1 else ["%s =" % option] + ["    " + word for word in words]
    found = span(lines, option)
    if found:
        return lines[: found[0]] + new + lines[found[1] :]
    for number, line in enumerate(lines):
        header = SECTION.match(line)
        if header and header.group(1).strip() == "global":
            return lines[: number + 1] + new + lines[number + 1 :]
    return lines + ([""] if lines and lines[-1].strip() else []) + ["[global]"] + new


def configured(text, extra_index_urls, options):
    """Return the text of a pip.conf with the options set."""
    lines = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n") if text else []
    there = value(lines, "extra-index-url")
    known = {url.rstrip("/") for url in there}
    missing = [url for url in extra_index_urls if url.rstrip("/") not in known]
    if missing:
        lines = set_option(lines, "extra-index-url", there + missing)
    for option, wanted in sorted(options.items()):
        if wanted and value(lines, option) != str(wanted).split():
            lines = set_option(lines, option, str(wanted).split())
    return "\n".join(lines) + "\n" if lines else ""


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            extra_index_urls=dict(type="list", elements="str", default=[]),
            options=dict(type="dict", default={}),
        ),
        supports_check_mode=True,
    )
    folder = module.params["path"]
    path = os.path.join(folder, "pip.conf")
    before = ""
    try:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                before = file.read()
        after = configured(before, module.params["extra_index_urls"], module.params["options"])
        if after != before and not module.check_mode:
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(after)
            # Somebody may have made it readable by few, for a password in it.
            os.chmod(path + ".new", os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644)
            os.replace(path + ".new", path)
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg="pip cannot be configured in %s: %s" % (path, error))
    module.exit_json(
        changed=after != before,
        files={path: hashlib.sha256(after.encode()).hexdigest()},
        diff=dict(before=before, after=after, before_header=path, after_header=path),
    )


if __name__ == "__main__":
    main()
