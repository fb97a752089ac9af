# SPDX-License-Identifier: GPL-3.0-or-later
"""The ranks of tensor parallelism: threads of this process, which meet where devices would talk to each other."""

import concurrent.futures
import threading
from typing import Any, Callable, List, Optional

_local = threading.local()
_group: Optional["Group"] = None


class Group:
    """All ranks there are: pipelines and groups of experts have one each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: List[Any] = [None] * size
        self._barrier = threading.Barrier(size)
        self._threads = concurrent.futures.ThreadPoolExecutor(size, "neuron-rank")

    def size(self) -> int:
        return self._size

    def run(self, function: Callable[[int], Any]) -> List[Any]:
        """What the function returns for each rank; all ranks are called at once, and stop when one of them fails."""
        self._barrier.reset()

        def call(rank: int) -> Any:
            _local.rank = rank
            try:
                return function(rank)
            except BaseException:
                self._barrier.abort()
                raise

        calls = [self._threads.submit(call, rank) for rank in range(self._size)]
        concurrent.futures.wait(calls)
        failures = [failure for failure in (done.exception() for done in calls) if failure]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, threading.BrokenBarrierError)):
            raise failure
        return [done.result() for done in calls]

    def gather(self, value: Any) -> List[Any]:
        """The value of each rank, once all have come here."""
        self._values[get_tensor_model_parallel_rank()] = value
        self._barrier.wait()
        found = list(self._values)
        self._barrier.wait()
        return found


def initialize_model_parallel(
    tensor_model_parallel_size: int = 1,
    pipeline_model_parallel_size: int = 1,
    expert_model_parallel_size: int = 1,
    **_: Any,
) -> None:
    global _group
    if (pipeline_model_parallel_size, expert_model_parallel_size) != (1, 1):
        raise NotImplementedError("the sandbox's stand-in of neuronx-distributed has tensor parallelism alone")
    if _group is None or _group.size() != tensor_model_parallel_size:
        _group = Group(tensor_model_parallel_size)


def model_parallel_is_initialized() -> bool:
    return _group is not None


def get_tensor_model_parallel_group(as_list: bool = False) -> Any:
    if _group is None:
        raise AssertionError("intra_layer_model parallel group is not initialized")
    return [list(range(_group.size()))] if as_list else _group


get_kv_shared_group = get_tensor_model_parallel_group


def get_tensor_model_parallel_size() -> int:
    return int(get_tensor_model_parallel_group().size())


def get_tensor_model_parallel_rank() -> int:
    """0 outside of a rank."""
    return getattr(_local, "rank", 0)


def get_pipeline_model_parallel_size() -> int:
    return 1


def get_pipeline_model_parallel_rank() -> int:
    return 0


def get_data_parallel_rank() -> int:
    return 0
