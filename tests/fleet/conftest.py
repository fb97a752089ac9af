# SPDX-License-Identifier: GPL-3.0-or-later
"""A run over its time is ended by SIGTERM, which by itself would skip all clean-up and leave a server behind."""

from __future__ import annotations

import signal

signal.signal(signal.SIGTERM, signal.default_int_handler)
