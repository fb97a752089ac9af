# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel says of itself."""


def nc(count: int) -> int:
    """So many physical cores under a logical one."""
    return count
