# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that download packages have in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  sources:
    description:
      - Where packages come from. Credentials belong into the C(.netrc) of the user that the module runs as, which uv
        and pip read, and not into these URLs.
    type: dict
    default: {}
    suboptions:
      index_url:
        description: Index of public packages, or a mirror of it; what uv and pip are configured with when not set.
        type: str
      neuron_index_url:
        description: Index of the AWS Neuron packages.
        type: str
      torch_index_url:
        description: Index that C(torch), C(torchvision) and C(torchaudio) are taken from, and nothing else.
        type: str
      wheelhouse:
        description:
          - Folder on the host, or URL of a page, with the files of all packages. No index is asked then.
        type: str
      ca_file:
        description:
          - File on the host with all certificate authorities to trust. By default those of C(SSL_CERT_FILE), or of
            the system.
        type: path
  uv_requirement:
    description:
      - The uv to install on the host when it is needed and missing, as a requirement with hashes. By default the one
        that the collection was tested with.
    type: str
  tools_path:
    description: Folder on the host that uv is kept in, outside of all environments.
    type: path
    default: /opt/neuronops/tools
requirements:
  - On the host the standard modules C(venv) and C(ensurepip), which Debian and Ubuntu package as C(python3-venv).
"""

    ATTRIBUTES = r"""
options: {}
attributes:
  async:
    description: Its answer is checked on the controller, past which C(async) would take it.
    support: none
  check_mode:
    description: Can run in check mode, changes nothing then and predicts what would change.
  diff_mode:
    description: Returns what changed, or would change in check mode.
  idempotent:
    description: Run again with the same arguments, it changes nothing.
"""
