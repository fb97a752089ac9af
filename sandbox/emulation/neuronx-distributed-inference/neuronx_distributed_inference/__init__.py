# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for AWS's neuronx-distributed-inference, in which the plugin vllm-neuron runs its models.

It has what vllm-neuron 0.2.2 to 0.5.0 imports, with the same names and signatures, and computes on the CPU.
"""

__version__ = "@VERSION@"
