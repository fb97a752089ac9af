# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for torch-xla: what optimum-neuron imports of it. Nothing here runs on it.

It is no distribution of its own, so that whoever asks for torch-xla by name does not take it for the real one.
"""

__version__ = "0"
