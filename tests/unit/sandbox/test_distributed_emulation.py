# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for neuronx-distributed and what optimum-neuron uses beside it, as far as it needs no torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.plugin_utils import stacks
from sandbox.repositories import python_index
from sandbox.repositories.python_index import EMULATION
from sandbox.repositories.releases import python_packages

FOLDERS = ("libneuronxla", "neuronx-cc", "neuronx-distributed", "torch-neuronx")
PACKAGES = ("libneuronxla", "neuronxcc", "neuronx_distributed", "torch_neuronx", "torch_xla")
# What optimum-neuron 0.4.5 imports to serve a model, module by module: with torch, and without.
WITH_TORCH = {
    "neuronx_distributed.operators.argmax": {"argmax"},
    "neuronx_distributed.operators.topk": {"topk"},
    "neuronx_distributed.parallel_layers.layers": {
        "BaseParallelLinear", "ColumnParallelLinear", "ParallelEmbedding", "RowParallelLinear", "SPMDRank",
        "create_local_weight",
    },
    "neuronx_distributed.parallel_layers.mappings": {
        "_gather_along_dim", "gather_from_sequence_parallel_region", "reduce_from_tensor_model_parallel_region",
        "scatter_to_sequence_parallel_region",
    },
    "neuronx_distributed.trace.model_builder": {"BaseModelInstance", "ModelBuilder"},
    "torch_neuronx": {"DataParallel"},
    "torch_neuronx.xla_impl.ops": {"RmsNorm", "nki_jit", "xla_hlo_call"},
}  # fmt: skip
WITHOUT = {
    "libneuronxla.neuron_cc_cache": {
        "CacheUrl", "CompileCache", "CompileCacheFs", "CompileCacheS3", "create_compile_cache",
    },
    "neuronx_distributed.kernels.flash_attn": {"nki_flash_attn_func"},
    "neuronx_distributed.modules.moe.expert_mlps": {"ExpertMLPs"},
    "neuronx_distributed.modules.moe.expert_mlps_v2": {"ExpertMLPsV2"},
    "neuronx_distributed.modules.moe.model": {"MoE"},
    "neuronx_distributed.modules.moe.moe_configs": {"RoutedExpertsMLPOpsConfig"},
    "neuronx_distributed.modules.moe.routing": {"RouterTopK"},
    "neuronx_distributed.modules.moe.shared_experts": {"SharedExperts"},
    "neuronx_distributed.modules.qkv_linear": {"GQAQKVColumnParallelLinear"},
    "neuronx_distributed.parallel_layers.pad": {"get_number_of_extra_heads"},
    "neuronx_distributed.parallel_layers.parallel_state": {
        "get_data_parallel_rank", "get_kv_shared_group", "get_pipeline_model_parallel_rank",
        "get_pipeline_model_parallel_size", "get_tensor_model_parallel_group", "get_tensor_model_parallel_rank",
        "get_tensor_model_parallel_size", "model_parallel_is_initialized",
    },
    "neuronx_distributed.parallel_layers.random": {"model_parallel_xla_manual_seed"},
    "neuronx_distributed.parallel_layers.utils": {
        "EmbeddingUtility", "divide", "get_local_world_size", "get_padding_length", "move_model_to_device",
    },
    "neuronx_distributed.pipeline": {"NxDPPModel"},
    "neuronx_distributed.pipeline.partition": {"analyze_shared_weights_across_stages"},
    "neuronx_distributed.pipeline.trace": {"HFTracerWrapper", "NxDTracer", "trace_model"},
    "neuronx_distributed.trace.hlo_utils": {"NXD_LAYOUT_TRANSFORMATION_OPTIONS"},
    "neuronx_distributed.utils.utils": {"hardware"},
    "neuronxcc": {"__version__"},
    "neuronxcc.nki._private_kernels.attention": {"attention_isa_kernel"},
    "neuronxcc.nki._private_kernels.cumsum": {"cumsum"},
    "neuronxcc.nki.language": {"nc"},
    "torch_neuronx.utils": {"get_platform_target"},
    "torch_xla": {"__version__"},
    "torch_xla.core.xla_model": set(),
    "torch_xla.distributed.parallel_loader": {"MpDeviceLoader"},
    "torch_xla.distributed.xla_backend": {"ProcessGroupXla"},
    "torch_xla.runtime": {"global_ordinal", "local_ordinal"},
    "torch_xla.utils.checkpoint": {"checkpoint"},
}  # fmt: skip


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-ins as modules to import, and nobody else's of the same names."""
    _forget()
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(str(EMULATION / folder))
    # torch_neuronx itself needs torch; what is in it does not.
    package = type(sys)("torch_neuronx")
    package.__path__ = [str(EMULATION / "torch-neuronx" / "torch_neuronx")]
    monkeypatch.setitem(sys.modules, "torch_neuronx", package)
    yield
    _forget()


@pytest.mark.parametrize(("module", "names"), WITHOUT.items())
def test_it_has_what_the_plugin_imports(module: str, names: set[str]) -> None:
    assert names <= set(dir(importlib.import_module(module)))


@pytest.mark.parametrize(("module", "names"), WITH_TORCH.items())
def test_it_has_what_the_plugin_imports_where_torch_is(module: str, names: set[str]) -> None:
    folder = next(folder for folder in FOLDERS if (EMULATION / folder / module.partition(".")[0]).is_dir())
    path = EMULATION / folder / module.replace(".", "/")
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    missing = {name for name in names if not any(f"{word}{name}" in text for word in ("def ", "class ", '"'))}
    assert {name for name in missing if f"\n{name} = " not in text} == set()


def test_what_is_for_training_can_be_imported_and_says_that_it_is_missing() -> None:
    names = [
        getattr(importlib.import_module(module), name)
        for module, name in (
            ("neuronx_distributed.pipeline", "NxDPPModel"),
            ("neuronx_distributed.pipeline.trace", "trace_model"),
            ("neuronx_distributed.parallel_layers.utils", "EmbeddingUtility"),
        )
    ]
    for name in names:
        with pytest.raises(NotImplementedError, match=f"stand-in of neuronx-distributed has no {name.__name__}"):
            name("anything", of="it")
    assert type("Own", (names[0],), {}), "the plugin makes classes of its own of them"


def test_torch_xla_comes_with_the_distribution_that_needs_it() -> None:
    """As a distribution of its own transformers and accelerate would take it for the real one."""
    package = next(
        package
        for package in python_packages()
        if (package.name, package.version) == ("neuronx-distributed", "0.15.22404")
    )
    (wheel,) = python_index._wheels(package)
    assert "torch_xla/core/xla_model.py" in wheel.files
    assert stacks.resolve("optimum-0.4.5")["python_packages"][package.name] == package.version


@pytest.fixture
def ranks() -> Any:
    return importlib.import_module("neuronx_distributed.parallel_layers.parallel_state")


def test_ranks_meet_where_they_tell_each_other_something(ranks: Any) -> None:
    group = ranks.Group(3)
    found = group.run(lambda rank: (group.gather(rank * 2), group.gather(ranks.get_tensor_model_parallel_rank())))
    assert found == [([0, 2, 4], [0, 1, 2])] * 3


def test_a_rank_that_fails_is_heard_of_and_the_next_call_works(ranks: Any) -> None:
    group = ranks.Group(2)

    def fails(rank: int) -> Any:
        if rank == 1:
            raise ValueError("rank 1 has no weights")
        return group.gather(rank)

    with pytest.raises(ValueError, match="rank 1 has no weights"):
        group.run(fails)
    assert group.run(group.gather) == [[0, 1], [0, 1]]


def test_the_group_is_known_once_it_was_made(ranks: Any) -> None:
    assert not ranks.model_parallel_is_initialized()
    with pytest.raises(AssertionError, match="not initialized"):
        ranks.get_tensor_model_parallel_group()
    with pytest.raises(NotImplementedError, match="tensor parallelism alone"):
        ranks.initialize_model_parallel(2, pipeline_model_parallel_size=2)
    ranks.initialize_model_parallel(tensor_model_parallel_size=4)
    assert ranks.model_parallel_is_initialized()
    assert ranks.get_tensor_model_parallel_size() == 4
    assert ranks.get_kv_shared_group(as_list=True) == [[0, 1, 2, 3]]


def test_sizes_are_those_of_the_ranks() -> None:
    utils = importlib.import_module("neuronx_distributed.parallel_layers.utils")
    pad = importlib.import_module("neuronx_distributed.parallel_layers.pad")
    assert utils.divide(12, 4) == 3
    with pytest.raises(AssertionError, match="12 is not divisible by 5"):
        utils.divide(12, 5)
    assert [utils.get_padding_length(size, 4) for size in (7, 8, 9)] == [1, 0, 3]
    assert pad.get_number_of_extra_heads(56, 32) == 8


@pytest.mark.parametrize(
    ("variables", "asked", "found"),
    [
        ({}, None, "/var/tmp/neuron-compile-cache"),  # noqa: S108 - AWS's own place
        ({"NEURON_COMPILE_CACHE_URL": "/srv/url"}, None, "/srv/url"),
        ({"NEURON_CC_FLAGS": "-O1 --cache_dir=/srv/flag", "NEURON_COMPILE_CACHE_URL": "/srv/url"}, None, "/srv/flag"),
        ({"NEURON_CC_FLAGS": "--cache_dir /srv/flag"}, "/srv/asked", "/srv/asked"),
    ],
)
def test_the_compiler_keeps_its_programs_where_it_was_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], asked: str | None, found: str
) -> None:
    for name in ("NEURON_CC_FLAGS", "NEURON_COMPILE_CACHE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cache = importlib.import_module("libneuronxla.neuron_cc_cache")
    assert cache.CacheUrl.get_cache_url(cache_dir=asked).url == found


def test_a_cache_is_a_folder(tmp_path: Path) -> None:
    cache = importlib.import_module("libneuronxla.neuron_cc_cache")
    made = cache.create_compile_cache(cache.CacheUrl.get_cache_url(str(tmp_path / "new")))
    assert (tmp_path / "new").is_dir() and made.cache_path == str(tmp_path / "new")
    with pytest.raises(NotImplementedError, match="keeps nothing in S3"):
        cache.create_compile_cache(cache.CacheUrl.get_cache_url("s3://bucket"))


@pytest.mark.parametrize(
    ("product", "override", "target"),
    [("inf2.xlarge\n", "", "inf2"), ("trn1n.32xlarge\n", "", "trn1"), ("trn1.2xlarge\n", "trn2", "trn2")],
)
def test_the_target_is_the_machine_or_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, product: str, override: str, target: str
) -> None:
    utils = importlib.import_module("torch_neuronx.utils")
    (tmp_path / "product_name").write_text(product)
    monkeypatch.setattr(utils, "_PRODUCT", tmp_path / "product_name")
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", override)
    hardware = importlib.import_module("neuronx_distributed.utils.utils").hardware
    assert hardware(utils.get_platform_target()).value == target


@pytest.mark.parametrize(("chip", "cores"), [("0x7264", 2), ("0x7164", 2), ("0x7364", 4)])
def test_each_chip_has_its_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chip: str, cores: int) -> None:
    (tmp_path / "0000:00:1e.0").mkdir()
    (tmp_path / "0000:00:1e.0" / "device").write_text(f"{chip}\n")
    module = importlib.import_module("libneuronxla.cores")
    monkeypatch.setattr(module, "_PCI_DEVICES", tmp_path)
    assert module._cores_per_device() == cores
