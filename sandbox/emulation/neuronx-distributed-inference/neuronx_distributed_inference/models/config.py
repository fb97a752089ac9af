# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's options: what the plugin fills in and reads, and the file that keeps them with a compiled model."""

import json
from pathlib import Path
from typing import Any, Callable, List, Optional

FILE = "neuron_config.json"


class _Options:
    """Keeps whatever it is given, as attributes: each release of the plugin passes other keywords."""

    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)


class OnDeviceSamplingConfig(_Options):
    dynamic: bool = False
    deterministic: bool = False
    global_topk: int = 256


class ChunkedPrefillConfig(_Options):
    pass


class NeuronConfig(_Options):
    tp_degree: int = 1
    batch_size: int = 1
    seq_len: int = 128
    max_context_length: int = 128
    enable_bucketing: bool = False
    context_encoding_buckets: Optional[List[int]] = None
    # The key-value cache is a line for each sequence, or a pool of blocks that vLLM hands out.
    is_block_kv_layout: bool = False
    is_prefix_caching: bool = False
    pa_num_blocks: int = 0
    pa_block_size: int = 0
    attn_tkg_nki_kernel_enabled: bool = False
    attn_block_tkg_nki_kernel_enabled: bool = False
    on_device_sampling_config: Optional[OnDeviceSamplingConfig] = None
    chunked_prefill_config: Optional[ChunkedPrefillConfig] = None
    lora_config: Any = None
    quantized: bool = False
    enable_fused_speculation: bool = False

    def __init__(self, **options: Any) -> None:
        options.setdefault("max_context_length", options.get("seq_len", self.seq_len))
        super().__init__(**options)
        # A user's options and those of a file are plain dictionaries.
        if isinstance(self.on_device_sampling_config, dict):
            self.on_device_sampling_config = OnDeviceSamplingConfig(**self.on_device_sampling_config)

    @property
    def is_chunked_prefill(self) -> bool:
        return self.chunked_prefill_config is not None

    def unsupported(self) -> List[str]:
        """The options that ask for what AWS's package can do and this stand-in cannot."""
        names = ("chunked_prefill_config", "lora_config", "quantized", "enable_fused_speculation")
        return [name for name in names if getattr(self, name)]


class FusedSpecNeuronConfig:
    """For speculative decoding, which the stand-in refuses; the plugin imports the name."""

    def __init__(self, worker_cls: Any, draft_config: Any, draft_model_path: str, **_: Any) -> None:
        raise NotImplementedError("the sandbox's stand-in of neuronx-distributed-inference knows no speculation")


class InferenceConfig:
    """The model's own configuration, as `load_config` sets it, with the NeuronConfig in it."""

    def __init__(
        self,
        neuron_config: NeuronConfig,
        fused_spec_config: Any = None,
        load_config: Optional[Callable[["InferenceConfig"], None]] = None,
        **values: Any,
    ) -> None:
        self.neuron_config = neuron_config
        self.fused_spec_config = fused_spec_config
        if load_config is not None:
            load_config(self)
        self.__dict__.update(values)

    def to_json_string(self) -> str:
        """The same text for the same settings: the plugin names the folder of a compiled model by its hash."""
        # What JSON does not know is an option like these, or a type of torch.
        return json.dumps(
            self.__dict__,
            indent=2,
            sort_keys=True,
            default=lambda value: vars(value) if isinstance(value, _Options) else str(value),
        )

    def save(self, folder: str) -> None:
        Path(folder, FILE).write_text(self.to_json_string(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str) -> "InferenceConfig":
        """Read what `save` wrote; without it the plugin must get FileNotFoundError, at which it compiles the model."""
        values = json.loads(Path(folder, FILE).read_text(encoding="utf-8"))
        return cls(NeuronConfig(**values.pop("neuron_config")), **values)
