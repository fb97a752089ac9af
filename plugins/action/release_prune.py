# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module beside us, and check what the host answers."""

from __future__ import annotations

from ansible_collections.neuronops.vllm.plugins.plugin_utils.observation import CheckedAction


class ActionModule(CheckedAction):
    MODULE = "release_prune"
