# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the tests import the collection by its own name, `ansible_collections.neuronops.vllm`, as Ansible does."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

COLLECTIONS = Path(__file__).resolve().parents[1] / ".build" / "collections"

if not (COLLECTIONS / "ansible_collections" / "neuronops" / "vllm" / "galaxy.yml").exists():
    raise SystemExit("The checkout is not set up: run `make env` first.")
sys.path.insert(0, str(COLLECTIONS))

# A run over its time is ended by SIGTERM, which by itself would skip all clean-up and leave a machine running.
signal.signal(signal.SIGTERM, signal.default_int_handler)
# Lookups and filters are found by their full names too, as ansible-playbook finds them; before anything is imported.
init_plugin_loader([str(COLLECTIONS)])
