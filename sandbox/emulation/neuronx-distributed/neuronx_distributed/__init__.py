# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for AWS's neuronx-distributed, over which optimum-neuron runs its own models.

It has what the inference of optimum-neuron 0.4.5 uses, with the same names and signatures, and computes on the CPU: the
ranks of tensor parallelism are threads of one process. What only training and mixtures of experts use can be imported.
"""

from neuronx_distributed import importable

importable.register()

from neuronx_distributed import parallel_layers  # noqa: E402, F401 - the names above must be there before

__version__ = "@VERSION@"
