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
    people who use that pip by hand, and in each section of a command that has one of its own, because that one wins.
  - Everything else in the file stays as it is. A file that pip itself cannot read is refused.
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
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import addresses, forms, pip_settings
from ansible_collections.neuronops.vllm.plugins.module_utils.files import write_at_once

SECTION = re.compile(r"\[(.+)\]")


def words_of(sections, section, option):
    """Return the words of an option that pip reads in a section: the last spelling of its name counts."""
    value = ""
    for key, text in sections.get(section, {}).items():
        if pip_settings.option_name(key) == option:
            value = text or ""
    return value.split()


def span(lines, section, option):
    """Return (first line, line after the last) of the option in a section that pip reads, or None.

    Its value goes on in lines that are indented, between which comments and empty lines may stand.
    """
    found, current = None, None
    for number, line in enumerate(lines):
        header = SECTION.match(line)
        key = re.match(r"([^\s=:#;\[][^=:]*?)\s*[=:]", line)
        if header:
            current = header.group(1)
        elif key and current == section and pip_settings.option_name(key.group(1)) == option:
            end = number + 1
            for later in range(number + 1, len(lines)):
                stripped = lines[later].strip()
                if stripped and not stripped.startswith(("#", ";")):
                    if not lines[later][:1].isspace():
                        break
                    end = later + 1
            found = (number, end)
    return found


def set_option(lines, section, option, words, appended=()):
    """Return the lines with an option set: to its words, of which the appended ones are put behind what is there."""
    found = span(lines, section, option)
    if found and appended and found[1] - found[0] > 1:
        last = lines[found[1] - 1]
        indent = last[: len(last) - len(last.lstrip())]
        return lines[: found[1]] + [indent + word for word in appended] + lines[found[1] :]
    name = re.split(r"\s*[=:]", lines[found[0]], maxsplit=1)[0] if found else option
    new = ["%s = %s" % (name, words[0])] if len(words) == 1 else ["%s =" % name] + ["    " + word for word in words]
    if found:
        return lines[: found[0]] + new + lines[found[1] :]
    for number, line in enumerate(lines):
        header = SECTION.match(line)
        if header and header.group(1) == section:
            return lines[: number + 1] + new + lines[number + 1 :]
    return lines + ([""] if lines and lines[-1].strip() else []) + ["[%s]" % section] + new


def sections_with(sections, option):
    """Return the sections to set an option in: [global], and each command's that has one of its own, which wins."""
    return ["global"] + [name for name in sections if name != "global" and words_of(sections, name, option)]


def configured(text, extra_index_urls, options, path="pip.conf"):
    """Return the text of a pip.conf with the options set; raises pip_settings.SettingsError or forms.FormError."""
    before = pip_settings.parsed(text, path)
    lines = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n") if text else []
    expected = {}
    for url in extra_index_urls:
        forms.form("line of text", url, "an index")
        if not url or url.split() != [url]:
            raise forms.FormError("an index is %s, and that is no address" % forms.shortened(url))
    for section in sections_with(before, "extra-index-url"):
        there = words_of(before, section, "extra-index-url")
        missing = []
        for url in extra_index_urls:
            if not any(addresses.same(url, known) for known in there + missing):
                missing.append(url)
        if missing:
            lines = set_option(lines, section, "extra-index-url", there + missing, missing)
            expected[section, "extra-index-url"] = there + missing
    for option, wanted in sorted(options.items()):
        if wanted in (None, ""):
            continue
        name = pip_settings.option_name(forms.form("file name", option, "an option of pip"))
        words = forms.form("line of text", str(wanted), option).split()
        for section in sections_with(before, name):
            if words and words_of(before, section, name) != words:
                lines = set_option(lines, section, name, words)
                expected[section, name] = words
    after = "\n".join(lines) + "\n" if lines else ""
    if expected:
        check(before, after, expected, path)
    return after if expected else text


def check(before, after, expected, path):
    """Fail unless pip reads of the new text what was to be set, and all else as before."""
    try:
        found = pip_settings.parsed(after, path)
    except pip_settings.SettingsError:
        found = {}
    known = {
        (section, pip_settings.option_name(key))
        for sections in (before, found)
        for section, options in sections.items()
        for key in options
    }
    for section, option in known | set(expected):
        wanted = expected.get((section, option), words_of(before, section, option))
        if words_of(found, section, option) != wanted:
            raise pip_settings.SettingsError(
                "%s is written in a way that cannot be changed without changing something else ([%s] %s). Set "
                "%s with `pip config --site set`."
                % (path, section, option, ", ".join(sorted({o for _s, o in expected})))
            )


def without_secrets(text):
    """Return the text of a file for the eyes of who runs Ansible."""
    return re.sub(r"//[^/@\s]+@", "//********@", text)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            extra_index_urls=dict(type="list", elements="str", default=[]),
            options=dict(type="dict", default={}),
        ),
        supports_check_mode=True,
    )
    os.umask(0o022)
    folder = module.params["path"]
    path = os.path.join(folder, "pip.conf")
    before = ""
    try:
        status = os.stat(path) if os.path.exists(path) else None
        if status:
            with open(path, encoding="utf-8") as file:
                before = file.read()
        after = configured(before, module.params["extra_index_urls"], module.params["options"], path)
        if after != before and not module.check_mode:
            owner = (status.st_uid, status.st_gid) if status and os.geteuid() == 0 else None
            # There may be a password in it, so who could not read it before cannot now.
            write_at_once(path, after, stat.S_IMODE(status.st_mode) if status else 0o644, owner)
    except (OSError, UnicodeDecodeError, forms.FormError, pip_settings.SettingsError) as error:
        module.fail_json(msg="pip cannot be configured in %s: %s" % (path, error))
    module.exit_json(
        changed=after != before,
        files={path: hashlib.sha256(after.encode()).hexdigest()},
        diff=dict(before=without_secrets(before), after=without_secrets(after), before_header=path, after_header=path),
    )


if __name__ == "__main__":
    main()
