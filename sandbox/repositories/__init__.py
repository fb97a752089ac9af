# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for AWS's apt repository, its Python index and vLLM's git remote.

build.build(folder) makes the tree that is served, server.py serves it, faults.write(folder / "www", {...}) breaks it.
"""
