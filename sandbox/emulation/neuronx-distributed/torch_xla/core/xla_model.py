# SPDX-License-Identifier: GPL-3.0-or-later
"""The process among all processes, by its older names: what is computed here asks for none of them."""
