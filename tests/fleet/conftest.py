# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever ends a run, what it started ends too: a run over its time is ended by SIGTERM, which alone skips all clean-up."""

from __future__ import annotations

import signal

signal.signal(signal.SIGTERM, signal.default_int_handler)
