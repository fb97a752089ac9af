# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the light stand-in for vLLM, which knows as vLLM's own setup.py what it is built for and by which compiler."""

import os
from importlib.metadata import version

from setuptools import find_packages, setup


def with_device(own):
    if os.environ.get("VLLM_TARGET_DEVICE") != "neuron":
        raise SystemExit("VLLM_TARGET_DEVICE is not neuron, and this stand-in knows no other device.")
    compiler = "".join(version("neuronx-cc").split(".")[:2])
    return own + ("." if "+" in own else "+") + "neuron" + compiler


setup(
    name="vllm",
    version=with_device(os.environ["SETUPTOOLS_SCM_PRETEND_VERSION"]),
    description="Light stand-in of the neuronops sandbox for vLLM; it computes nothing",
    packages=find_packages(),
    python_requires=">=3.9",
)
