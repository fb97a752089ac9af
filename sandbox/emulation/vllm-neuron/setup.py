# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox writes the versions over their markers, and this file takes care of the rest."""

from setuptools import find_packages, setup

setup(
    name="vllm-neuron",
    version="@VERSION@",
    description="Stand-in of the neuronops sandbox for vllm-neuron; not the plugin of vllm-project",
    license="GPL-3.0-or-later",
    packages=find_packages(),
    python_requires=">=3.10",
    # As the plugin of each release has it: one vLLM alone.
    install_requires=["packaging>=24.2", "setuptools-scm>=8", "vllm==@VLLM@", "neuronx-distributed-inference>=0.7"],
    entry_points={"vllm.platform_plugins": ["neuron = vllm_neuron:register"]},
)
