# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what the options of role vllm_server have vLLM's API server started with, and which settings are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils.stacks import merged

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
# What the plugin vllm-neuron is given by the role, or cannot do.
PREFIX_CACHING = (
    "the role does not set up prefix caching, on which the compiler of SDK 2.28 crashes on trn1 "
    "(aws-neuron-sdk issue 1304) and which gave wrong text with older plugins"
)
NXD_INFERENCE = {
    "--additional-config": "set vllm_server_additional_config",
    "--block-size": "without prefix caching it is the whole context; set vllm_server_max_model_len",
    "--device": "this vLLM has no such argument; the plugin finds the devices",
    "--enable-chunked-prefill": "NxD Inference has no chunked prefill",
    "--enable-prefix-caching": PREFIX_CACHING,
    "--num-gpu-blocks-override": "without prefix caching it is the number of sequences; set vllm_server_max_num_seqs",
    "--override-neuron-config": "set override_neuron_config in vllm_server_additional_config",
}
# What optimum-neuron is given by the role, or cannot do; its API server takes most of it without a word.
OPTIMUM_NEURON = {
    "--additional-config": "no server of the backend optimum_neuron reads it",
    "--block-size": "it is the whole context; set vllm_server_max_model_len",
    "--convert": "the role exports models that generate text, and no others",
    "--data-parallel-size": "optimum-neuron has no data parallelism",
    "-dp": "optimum-neuron has no data parallelism",
    "--device": "this vLLM has no such argument; the plugin finds the devices",
    "--dtype": "what was exported has the model's own type",
    "--enable-chunked-prefill": "optimum-neuron has no chunked prefill",
    "--enable-lora": "optimum-neuron has no LoRA",
    "--enable-prefix-caching": "optimum-neuron has no prefix caching",
    "--model-loader-extra-config": "the role exports the model before it is served",
    "--num-gpu-blocks-override": "the plugin has one block; set vllm_server_max_num_seqs",
    "--override-neuron-config": "no server of the backend optimum_neuron reads it",
    "--pipeline-parallel-size": "optimum-neuron has no pipeline parallelism",
    "-pp": "optimum-neuron has no pipeline parallelism",
    "--runner": "the role exports models that generate text, and no others",
    "--speculative-config": "optimum-neuron has no speculative decoding",
    "--task": "the role exports models that generate text, and no others",
}
ARGUMENTS = {"nxd_inference": NXD_INFERENCE, "optimum_neuron": OPTIMUM_NEURON}
# The same of override_neuron_config, and of the variables.
OVERRIDES = {
    "batch_size": "set vllm_server_max_num_seqs",
    "seq_len": "set vllm_server_max_model_len",
    "tp_degree": "set vllm_server_tensor_parallel_size",
    "is_block_kv_layout": PREFIX_CACHING,
    "is_prefix_caching": PREFIX_CACHING,
    "pa_block_size": PREFIX_CACHING,
    "pa_num_blocks": PREFIX_CACHING,
    "is_chunked_prefill": "NxD Inference has no chunked prefill",
    "chunked_prefill_config": "NxD Inference has no chunked prefill",
}
VARIABLES = {
    "DISABLE_NEURON_CUSTOM_SCHEDULER": "vLLM's own scheduler prefills in chunks, which NxD Inference cannot do; leave "
    "it out",
    "NEURON_COMPILED_ARTIFACTS": "the role gives each configuration a folder of its own, as the plugin takes what is "
    "there for what was asked, and the server dies under load where it is not; leave it out",
    "NEURON_ON_DEVICE_SAMPLING_DISABLED": "the server ends with it at its start (vllm-neuron issue 29); leave it out, "
    "vLLM samples on the host already",
    "NEURON_RT_VISIBLE_CORES": "set vllm_server_visible_cores",
}
OPTIMUM_VARIABLES = {
    "NEURON_COMPILED_ARTIFACTS": "the role gives each export a folder of its own; leave it out",
    "NEURON_PLATFORM_TARGET_OVERRIDE": "the model is exported for the instance that serves it; leave it out",
    "NEURON_RT_NUM_CORES": "set vllm_server_visible_cores",
    "NEURON_RT_VISIBLE_CORES": "set vllm_server_visible_cores",
}
ON_DEVICE = (
    "with sampling on the device, requests that are served together get each other's sampling parameters; leave it "
    "out. Where all requests have the same ones, set it in neuron_stack_overrides.server.additional_config"
)
# What of a user's variables can change what is compiled, and what of these cannot.
_COMPILES = re.compile(r"(?:NEURON|XLA)_(?!RT_|COMPILE_CACHE_URL\Z)")
_CORES = re.compile(r"(?:([0-9]{1,4})-([0-9]{1,4})|[0-9]{1,4}(?:,[0-9]{1,4})*)\Z", re.ASCII)


def refusals(arguments: Sequence[str], block_size_is_context: bool = False, backend: str = "in_tree") -> list[str]:
    """Say of each argument that an option of the role says, which one; argparse takes any beginning of a name."""
    options = {
        **OPTIONS,
        **(BLOCK_SIZE if block_size_is_context else {}),
        **ARGUMENTS.get(backend, {}),
    }
    found = []
    for argument in arguments:
        name = (argument.partition("=")[0].split() or [""])[0]
        plain = name.replace("_", "-")  # vLLM does the same
        if plain in ("-", "--"):
            found.append(f"{name}: it is no option")
            continue
        if len(plain) < 2 or not plain.startswith("-"):
            continue
        plain = plain.partition(".")[0]  # --a.b=1 is a part of --a
        for option, instead in options.items():
            if option.startswith(plain) or (option.endswith("-") and plain.startswith(option)):
                found.append(f"{name}: {instead}")
                break
    return found


def visible_cores(text: str) -> list[int]:
    """Return the NeuronCores that "0-7" or "0,1,2" names, none for no text; raises ValueError for what is neither."""
    if not text:
        return []
    match = _CORES.match(text)
    if not match:
        raise ValueError("should be one range, such as 0-7, or a list, such as 0,1,2, and not both")
    found = list(range(int(match[1]), int(match[2]) + 1)) if match[1] else [int(core) for core in text.split(",")]
    if not found or len(set(found)) < len(found):
        raise ValueError("names a core twice, or a range whose end comes before its beginning")
    return found


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options of role vllm_server, with the stack among them, say beyond themselves.

    refusals       what cannot be meant or is known to end badly (sentences)
    cores          the NeuronCores that the server may take; none where it may take all
    arguments      further arguments of the server
    compiled_from  what decides on what is compiled, beside the model's files and the number of cores; empty where
                   nothing is kept that is compiled for a configuration
    exports        whether the model is exported before the server is started, which then serves what was exported
    """
    stack, refused, cores = options["stack"], [], []
    backend, given = stack["backend"], _plain(options["additional_config"])
    try:
        cores = visible_cores(options["visible_cores"])
    except ValueError as error:
        refused.append(f"vllm_server_visible_cores is {options['visible_cores']!r}, and {error}")
    size = options["tensor_parallel_size"]
    if cores and size > len(cores):
        refused.append(f"vllm_server_tensor_parallel_size is {size}, and vllm_server_visible_cores names {len(cores)}")
    if options["visible_cores"] and "NEURON_RT_VISIBLE_CORES" in options["environment"]:
        refused.append(
            "vllm_server_environment has NEURON_RT_VISIBLE_CORES, for which vllm_server_visible_cores is set"
        )
    if backend != "nxd_inference" and given:
        refused.append(f"vllm_server_additional_config is set, and no server of the backend {backend} reads it")
    if backend == "in_tree":
        return {"refusals": refused, "cores": cores, "arguments": [], "compiled_from": [], "exports": False}

    exports = backend == "optimum_neuron"
    context, sequences = options["max_model_len"] or stack["server"]["max_model_len"] or 0, options["max_num_seqs"]
    if not context:
        why = "the model is exported for it" if exports else "the server does not start without"
        refused.append(
            f"vllm_server_max_model_len is not set, and {why}: set it to the longest context, in tokens, that your "
            "requests need"
        )
    ending_badly = OPTIMUM_VARIABLES if exports else VARIABLES
    refused += [
        f"vllm_server_environment has {name}: {ending_badly[name]}"
        for name in ending_badly
        if name in options["environment"]
    ]
    compiling = {name: value for name, value in sorted(options["environment"].items()) if _COMPILES.match(name)}
    if exports:
        refused += _wrong_export(options)
        return {
            "refusals": refused,
            "cores": cores,
            "arguments": [],
            # No argument of the server is one of the export's.
            "compiled_from": [stack.get("id", ""), options["model"], context, sequences, compiling],
            "exports": True,
        }

    refused += [f"vllm_server_additional_config has {sentence}" for sentence in _wrong_config(given)]
    config = merged(_plain(stack["server"]["additional_config"]), given)
    return {
        "refusals": refused,
        "cores": cores,
        "arguments": [
            *("--num-gpu-blocks-override", str(sequences)),
            *("--additional-config", json.dumps(config, sort_keys=True, separators=(",", ":"))),
        ],
        "compiled_from": [
            *(stack.get("id", ""), options["model"], context, sequences, config),
            [*stack["server"]["arguments"], *options["arguments"]],
            compiling,
        ],
        "exports": False,
    }


def _wrong_export(options: Mapping[str, Any]) -> Iterator[str]:
    """Say what keeps a model from being exported, or what was exported from being served."""
    if not options["model"].startswith("/"):
        yield (
            f"vllm_server_model is {options['model']}, a name of the Hugging Face hub, and the model is exported "
            "without any network: copy it to the host, and name that folder"
        )
    if "," in options["visible_cores"]:
        yield (
            f"vllm_server_visible_cores is {options['visible_cores']!r}, and optimum-neuron takes a list for one core: "
            "set it to a range, such as 0-3"
        )


def _plain(value: Any) -> Any:
    """Return a value of a variable as JSON has it, without the types that Ansible gives it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _wrong_config(given: Mapping[str, Any]) -> Iterator[str]:
    """Say what of an additional config the plugin would not read, or would read to nobody's good."""
    overrides = given.get("override_neuron_config", {})
    if not isinstance(overrides, Mapping):
        yield "override_neuron_config, which should be a dictionary"
        return
    for place, name, value in _entries(given):
        if "-" in name:
            yield f"{place}, which the plugin does not read: write {name.replace('-', '_')}"
        if name == "on_device_sampling_config" and value is not None:
            yield f"{place}: {ON_DEVICE}"
    for name, instead in OVERRIDES.items():
        if overrides.get(name):
            yield f"override_neuron_config.{name}: {instead}"


def _entries(value: Any, before: str = "") -> Iterator[tuple[str, str, Any]]:
    """Return (place, name, value) of everything in a dictionary that has a name, at any depth."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield before + name, name, entry
            yield from _entries(entry, f"{before}{name}.")
    elif isinstance(value, list):
        for entry in value:
            yield from _entries(entry, before)
