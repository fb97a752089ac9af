# SPDX-License-Identifier: GPL-3.0-or-later
"""The command neuronx-cc."""

import sys

from neuronxcc.version import __version__


def main() -> int:
    if "--version" in sys.argv[1:]:
        print(f"NeuronX Compiler version {__version__}")
        return 0
    print("neuronx-cc: this is the sandbox's stand-in, which compiles nothing", file=sys.stderr)
    return 1
