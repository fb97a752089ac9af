# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the environment of a task before Ansible puts it on a command line, which every local user sees."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.neuronops.vllm.plugins.module_utils.addresses import has_credentials

SECRET = re.compile(r"(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET)(?:_|$)", re.IGNORECASE)


def variables(action: Any) -> dict[str, str]:
    """Return the environment of an action's task, templated."""
    found: dict[str, Any] = {}
    action._compute_environment_string(found)
    return {str(name): str(value) for name, value in found.items()}


def refusal(found: dict[str, str]) -> str:
    """Say which variable holds a secret and what to do instead, or nothing."""
    for name, value in sorted(found.items()):
        words = [word for word in re.split(r"[\s,]+", value) if word]
        if (SECRET.search(name) and value) or any(has_credentials(word) for word in words):
            return (
                f"The task's environment has a user name or password in {name}, and every local user would see it in "
                "the list of processes. Put the address with its password into /etc/pip.conf or root's "
                "~/.config/pip/pip.conf (mode 0600) of the machine, as `proxy = ...` or `index-url = ...`, or into "
                "root's ~/.netrc; they are handed on to pip and uv. Nothing was changed."
            )
    return ""
