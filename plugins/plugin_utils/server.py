# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell which arguments of vLLM's API server say what an option of role vllm_server says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OPTIONS: Mapping[str, str] = {
    "--api-key": "set vllm_server_api_key, which stays off the command line",
    "--config": "write what is in the file into the options of the role",
    "--host": "set vllm_server_host",
    "--max-model-len": "set vllm_server_max_model_len",
    "--max-num-seqs": "set vllm_server_max_num_seqs",
    "--model": "set vllm_server_model",
    "--port": "set vllm_server_port",
    "--served-model-name": "set vllm_server_served_model_name",
    "--tensor-parallel-size": "set vllm_server_tensor_parallel_size",
    "-tp": "set vllm_server_tensor_parallel_size",
    "--uds": "set vllm_server_host and vllm_server_port",
    "--enable-ssl-refresh": "put a proxy with TLS before the server",
    "--ssl-": "put a proxy with TLS before the server",
}
# vLLM 0.4.2 and before must be given this as the role gives it.
BLOCK_SIZE = {"--block-size": "this vLLM needs the whole context as block size; set vllm_server_max_model_len"}


def refusals(arguments: Sequence[str], block_size_is_context: bool = False) -> list[str]:
    """Say of each argument that an option of the role says, which one; argparse takes any beginning of a name."""
    options = {**OPTIONS, **(BLOCK_SIZE if block_size_is_context else {})}
    found = []
    for argument in arguments:
        name = (argument.partition("=")[0].split() or [""])[0]
        plain = name.replace("_", "-")  # vLLM does the same
        if plain in ("-", "--"):
            found.append(f"{name}: it is no option")
            continue
        if len(plain) < 2 or not plain.startswith("-"):
            continue
        for option, instead in options.items():
            if option.startswith(plain) or (option.endswith("-") and plain.startswith(option)):
                found.append(f"{name}: {instead}")
                break
    return found
