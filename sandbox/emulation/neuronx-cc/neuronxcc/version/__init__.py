# SPDX-License-Identifier: GPL-3.0-or-later
# vLLM's setup.py reads the next line as text, to find its version's suffix.
__version__ = '@VERSION@'  # fmt: skip
