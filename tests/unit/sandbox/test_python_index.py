# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in wheels and the index that offers them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import re
import urllib.parse
import zipfile
from pathlib import Path

import pytest

from plugins.plugin_utils import stacks
from sandbox.repositories import python_index
from sandbox.repositories.releases import python_packages
from sandbox.repositories.wheels import Wheel

WHEELS = [wheel for package in python_packages() for wheel in python_index._wheels(package)]


def wheels(name: str, version: str) -> list[Wheel]:
    return [wheel for wheel in WHEELS if wheel.name == name and wheel.version.partition("+")[0] == version]


def test_every_stack_finds_its_python_packages_for_its_pythons() -> None:
    for stack in stacks.load()["stacks"]:
        entry = stacks.resolve(stack)
        for name, version in entry["python_packages"].items():
            if name in ("torch", "torchvision"):
                continue
            found = wheels(name, version)
            assert found, f"{stack} asks for {name} {version}, which AWS did not publish"
            if name == "neuronx-cc":
                tags = {f"cp{python.replace('.', '')}" for python in entry["pythons"]}
                assert tags <= {wheel.tag.partition("-")[0] for wheel in found}, stack


def test_a_wheel_is_complete() -> None:
    (wheel,) = wheels("transformers-neuronx", "0.13.798")
    with zipfile.ZipFile(io.BytesIO(wheel.content())) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        assert "transformers_neuronx/llama/model.py" in names
        assert not any("__pycache__" in name or name.endswith(".md") for name in names)
        root = zipfile.Path(archive)
        (info,) = [path for path in root.iterdir() if path.name.endswith(".dist-info")]
        metadata = importlib.metadata.PathDistribution(info)
        assert (metadata.metadata["Name"], metadata.version) == ("transformers-neuronx", "0.13.798")
        recorded = {line.split(",")[0] for line in (info / "RECORD").read_text().splitlines()}
        assert recorded == set(names)


def test_versions_are_written_where_they_are_read() -> None:
    wheel = wheels("neuronx-cc", "2.18.121.0")[0]
    version = wheel.files["neuronxcc/version/__init__.py"].decode()
    # The expression is that of vLLM's setup.py.
    found = re.search(r"__version__ = '(\S+)'", version)
    assert found and found[1] == "2.18.121.0"
    for candidate in WHEELS:
        assert not any(b"@VERSION@" in content for content in candidate.files.values()), candidate.filename
    module, _, function = wheel.console_scripts["neuronx-cc"].partition(":")
    assert f"def {function}(" in wheel.files[f"{module.replace('.', '/')}.py"].decode()


def test_torch_neuronx_wants_its_torch_and_libneuronxla_as_its_release_did() -> None:
    assert wheels("torch-neuronx", "2.5.1.2.7.5413")[0].requires == ["torch==2.5.1", "libneuronxla==2.2.3493.0"]
    assert wheels("torch-neuronx", "2.1.1.2.0.1b0")[0].requires == ["torch==2.1.1", "libneuronxla>=2.0,<3"]
    assert wheels("torch-neuronx", "1.13.1.1.14.0")[0].requires == ["torch==1.13.1", "libneuronxla>=0.0,<1"]
    # The stack on SDK 2.29.1 has torch 2.9.1.
    assert wheels("torch-neuronx", "2.9.0.2.13.26312")[0].requires == ["torch==2.9.*", "libneuronxla==2.2.16408.0"]
    assert wheels("torch-neuronx", "2.8.0.2.11.19912")[0].requires == ["torch==2.8.0", "libneuronxla==2.2.14584.0"]


@pytest.mark.parametrize(
    ("sdk", "versions"),
    {
        "2.26.1": {"neuronx-distributed": "0.15.22404"},
        "2.27.1": {"neuronx-distributed": "0.16.25997", "neuronx-distributed-inference": "0.7.15063"},
        "2.28.1": {"neuronx-distributed": "0.17.26814", "neuronx-distributed-inference": "0.8.16251", "nki": "0.2.0"},
        "2.29.1": {"neuronx-distributed": "0.18.27753", "neuronx-distributed-inference": "0.9.17334", "nki": "0.3.0"},
    }.items(),
)
def test_what_the_plugins_for_newer_vllm_run_on_is_there(sdk: str, versions: dict[str, str]) -> None:
    torch_neuronx = {
        wheel.requires_python for wheel in WHEELS if wheel.name == "torch-neuronx" and wheel.requires_python
    }
    for name, version in versions.items():
        (wheel,) = wheels(name, version)
        assert wheel.requires_python in torch_neuronx, f"{name} of {sdk} runs where torch-neuronx does"
        module = f"{name.replace('-', '_')}/__init__.py"
        assert f'__version__ = "{wheel.version.partition("+")[0]}"' in wheel.files[module].decode()


def test_packages_for_inference_want_each_other_and_the_transformers_of_their_release() -> None:
    assert wheels("nki", "0.3.0")[0].requires == []
    assert wheels("neuronx-distributed", "0.15.22404")[0].requires == ["torch-neuronx", "safetensors"]
    found = {
        wheel.version.partition("+")[0]: wheel.requires
        for wheel in WHEELS
        if wheel.name == "neuronx-distributed-inference"
    }
    assert all("neuronx-distributed" in requires for requires in found.values())
    assert {
        version: [line for line in requires if "==" in line or "<" in line] for version, requires in found.items()
    } == {
        "0.6.10598": ["transformers==4.51.*"],
        "0.7.14366": ["transformers==4.56.*"],
        "0.7.15063": ["transformers==4.56.*"],
        "0.8.16251": ["transformers==4.57.*"],
        "0.9.17334": ["transformers==4.57.*", "hf-xet<2,>=1.1.10", "torch-neuronx==2.9.*"],
    }


def test_local_versions_look_as_those_of_aws() -> None:
    def local(name: str, version: str) -> str:
        return wheels(name, version)[0].version.partition("+")[2]

    assert re.fullmatch("[0-9a-f]{8}", local("neuronx-distributed", "0.17.26814"))
    assert re.fullmatch("[0-9a-f]{8}", local("neuronx-distributed-inference", "0.8.16251"))
    assert re.fullmatch("g[0-9a-f]{8}", local("nki", "0.2.0"))
    assert re.fullmatch("[0-9]{11}[.]g[0-9a-f]{8}", local("nki", "0.3.0"))
    assert local("transformers-neuronx", "0.13.798") == ""


def test_pythons_without_wheels_are_told_so() -> None:
    assert {wheel.tag.partition("-")[0] for wheel in wheels("neuronx-cc", "2.12.68.0")} == {"cp38", "cp39", "cp310"}
    assert wheels("torch-neuronx", "2.1.1.2.0.1b0")[0].requires_python == ">=3.8,<3.11"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    python_index.write(folder)
    return folder


def test_links_lead_to_files_with_the_hash_they_promise(index: Path) -> None:
    pages = sorted(page for page in index.glob("*/index.html") if page.parent.name != "light")
    assert [page.parent.name for page in pages] == [
        "libneuronxla",
        "neuronx-cc",
        "neuronx-distributed",
        "neuronx-distributed-inference",
        "nki",
        "torch-neuronx",
        "transformers-neuronx",
    ]
    for page in pages:
        links = re.findall(r'href="([^"]+)#sha256=([0-9a-f]+)"', page.read_text())
        assert len(links) == len(list(page.parent.glob("*.whl")))
        for link, digest in links:
            content = (page.parent / urllib.parse.unquote(link)).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest


@pytest.mark.parametrize(
    "name", ["libtorch-neuronx-lite", "neuronx-distributed", "neuronx-distributed-inference", "nki", "vllm-neuron"]
)
def test_the_hostile_index_has_every_name_that_only_aws_may_fill(index: Path, name: str) -> None:
    (wheel,) = (index / "hostile/simple" / name).glob("*.whl")
    assert wheel.name.startswith(f"{name.replace('-', '_')}-99.0-")


def test_the_hostile_index_offers_newer_packages_that_show_when_they_get_in(index: Path) -> None:
    (wheel,) = (index / "hostile/simple/transformers-neuronx").glob("*.whl")
    assert "-99.0-" in wheel.name
    with zipfile.ZipFile(wheel) as archive, pytest.raises(ImportError, match="hostile transformers-neuronx"):
        exec(archive.read("transformers_neuronx/__init__.py"), {})  # noqa: S102 - the test's own package
