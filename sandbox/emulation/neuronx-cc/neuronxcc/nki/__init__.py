# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels for NeuronCores; here they are functions on torch's tensors, and write into the last one, as kernels do."""
