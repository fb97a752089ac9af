# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins, on one machine, for what the collection needs and cannot be had without an AWS account.

EC2, the Neuron repositories, a git remote and hosts with Neuron hardware. Nothing in roles/ or plugins/ knows that it
exists. `python -m sandbox --help` says how to start and remove it.
"""
