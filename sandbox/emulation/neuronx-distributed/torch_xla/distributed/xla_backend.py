# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups of processes on devices: none."""


class ProcessGroupXla:
    pass
