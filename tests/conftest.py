# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the tests import the collection by its own name, `ansible_collections.neuronops.vllm`, as Ansible does."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

COLLECTIONS = Path(__file__).resolve().parents[1] / ".build" / "collections"

if not (COLLECTIONS / "ansible_collections" / "neuronops" / "vllm" / "galaxy.yml").exists():
    raise SystemExit("The checkout is not set up: run `make env` first.")
sys.path.insert(0, str(COLLECTIONS))

# A run over its time is ended by SIGTERM, which by itself would skip all clean-up and leave a machine running.
signal.signal(signal.SIGTERM, signal.default_int_handler)
