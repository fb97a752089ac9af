# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that vLLM fills in. Only continuous batching and on-device sampling change what is computed."""

from typing import Any, List, Optional, Union


class _Options:
    """Keeps whatever it is given, as attributes: each vLLM release passes other keywords."""

    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)


class ContinuousBatchingConfig(_Options):
    def __init__(self, batch_size_for_shared_caches: int, **options: Any) -> None:
        super().__init__(batch_size_for_shared_caches=batch_size_for_shared_caches, **options)


class GenerationConfig(_Options):
    """Sampling on the device: top_k, top_p and temperature hold one value, or one for each slot of the cache."""

    top_k: Union[int, List[int]] = 50
    top_p: Union[float, List[float]] = 1.0
    temperature: Union[float, List[float]] = 1.0
    do_sample: bool = False
    max_length: Optional[int] = None


class QuantizationConfig(_Options):
    pass


class KVCacheQuantizationConfig(_Options):
    pass


class SparseAttnConfig(_Options):
    pass


class NeuronConfig(_Options):
    continuous_batching: Optional[ContinuousBatchingConfig] = None
    on_device_generation: Optional[GenerationConfig] = None
