# SPDX-License-Identifier: GPL-3.0-or-later
"""The Neuron Python index: a stand-in for every version of the packages that AWS published.

As on the real index, neuronx-cc has a wheel for each Python and the others say in their metadata which ones they take,
and all but transformers-neuronx have a local version. torch-xla, which the real torch-neuronx and neuronx-distributed
need too, is left out: nothing here runs on it. What is imported of it comes with neuronx-distributed.
"""

from __future__ import annotations

import hashlib
import html
from dataclasses import replace
from pathlib import Path

from sandbox.repositories import light
from sandbox.repositories.releases import Package, build_hash, number, python_packages
from sandbox.repositories.wheels import Wheel

EMULATION = Path(__file__).parents[1] / "emulation"
ALL_PYTHONS = ("3.7", "3.8", "3.9", "3.10")
HOSTILE_VERSION = "99.0"
# Names of AWS's that nothing stands in for on the index, and that nobody else may fill.
ONLY_AWS = ("libtorch-neuronx-lite", "vllm-neuron")


def _sources(name: str, version: str) -> dict[str, bytes]:
    folder = EMULATION / name
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not files:
        raise FileNotFoundError(f"{folder} holds no sources for the stand-in of {name}")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(b"@VERSION@", version.encode())
        for path in files
        if path.suffix in (".py", ".typed", ".json", ".txt")
    }


def _requires_python(pythons: tuple[str, ...]) -> str:
    ordered = sorted(pythons or ALL_PYTHONS, key=number)
    major, minor = number(ordered[-1])
    return f">={ordered[0]},<{major}.{minor + 1}"


def _requirements(package: Package) -> list[str]:
    if package.name == "neuronx-cc":
        # AWS runs vLLM 0.16.0 on SDK 2.29, and what that needs of OpenCV needs numpy 2.
        return ["numpy<2"] if number(package.sdk) < (2, 29) else ["numpy"]
    if package.name == "transformers-neuronx":
        return ["accelerate", "torch-neuronx", "transformers"]
    if package.name in ("libneuronxla", "nki"):
        return []
    if package.name == "neuronx-distributed":
        return ["torch-neuronx", "safetensors"]
    if package.name == "neuronx-distributed-inference":
        return _inference_requirements(number(package.version))
    torch = ".".join(package.version.split(".")[:3])
    # libneuronxla has one line of versions for torch 1.13, and another for torch 2. A release that names no exact one
    # takes the newest there is, which is what users of older releases ran into.
    first = 0 if torch.startswith("1.") else 1 if torch.startswith("2.0.") else 2
    own = [version for version in package.siblings["libneuronxla"] if number(version)[0] >= first]
    exact = number(package.sdk) >= (2, 22) and own
    line = f"libneuronxla=={own[0]}" if exact else f"libneuronxla>={first}.0,<{max(first, 0) + 1}"
    # AWS runs 2.9.0.2.13 on torch 2.9.1 as well as on 2.9.0.
    return [f"torch=={'2.9.*' if number(torch) >= (2, 9) else torch}", line]


def _inference_requirements(version: tuple[int, ...]) -> list[str]:
    """What setup.py of each release asks for; vLLM itself would take any transformers."""
    transformers = {6: "4.51", 7: "4.56"}.get(version[1], "4.57")
    extra = ["hf-xet<2,>=1.1.10", "torch-neuronx==2.9.*"] if version >= (0, 9) else []
    own = ["blobfile", "huggingface-hub", "neuronx-distributed", "pillow", "sentencepiece", "torchvision"]
    return [*own, f"transformers=={transformers}.*", *extra]


def _local(package: Package) -> str:
    """The local version: the commit, for nki as git names it, and from nki 0.3.0 on after the number of the build."""
    if package.name == "transformers-neuronx":
        return ""
    commit = build_hash(package.name, package.version, 8)
    if package.name != "nki":
        return f"+{commit}"
    build = f"{int(commit, 16) + 10**10}." if number(package.version) >= (0, 3) else ""
    return f"+{build}g{commit}"


def _wheels(package: Package) -> list[Wheel]:
    wheel = Wheel(
        package.name,
        package.version + _local(package),
        "py3-none-any",
        f"Stand-in of the neuronops sandbox for {package.name}; not AWS's",
        _sources(package.name, package.version),
        _requirements(package),
        _requires_python(package.pythons),
    )
    if package.name == "libneuronxla":
        return [replace(wheel, tag="py3-none-linux_x86_64")]
    if package.name != "neuronx-cc":
        return [wheel]
    wheel = replace(wheel, console_scripts={"neuronx-cc": "neuronxcc.command:main"})
    tags = (f"cp{python.replace('.', '')}" for python in package.pythons)
    return [replace(wheel, tag=f"{tag}-{tag + ('m' if tag == 'cp37' else '')}-linux_x86_64") for tag in tags]


def _hostile(name: str) -> Wheel:
    """What somebody else may publish under a Neuron package's name: newer than any, and it shows when it gets in."""
    module = {"neuronx-cc": "neuronxcc"}.get(name, name.replace("-", "_"))
    text = f'"""Hostile package of the sandbox: it must never be installed."""\nraise ImportError("hostile {name}")\n'
    return Wheel(
        name,
        HOSTILE_VERSION,
        "py3-none-any",
        "Hostile package of the neuronops sandbox",
        {f"{module}/__init__.py": text.encode()},
    )


def _page(title: str, links: dict[str, str], note: str) -> bytes:
    lines = [f'<a href="{html.escape(link)}"{attributes}</a><br/>' for link, attributes in links.items()]
    body = "\n".join(lines)
    return (
        f'<!DOCTYPE html>\n<html><head><meta name="pypi:repository-version" content="1.0"><title>{title}</title></head>'
        f"<body>\n<!-- {note} -->\n{body}\n</body></html>\n"
    ).encode()


def _write_index(folder: Path, wheels: list[Wheel], note: str) -> None:
    projects: dict[str, dict[str, str]] = {}
    for wheel in wheels:
        content = wheel.content()
        path = folder / wheel.name / wheel.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        requires = f' data-requires-python="{html.escape(wheel.requires_python)}"' if wheel.requires_python else ""
        link = f"{wheel.filename.replace('+', '%2B')}#sha256={hashlib.sha256(content).hexdigest()}"
        projects.setdefault(wheel.name, {})[link] = f"{requires}>{wheel.filename}"
    for name, links in projects.items():
        (folder / name / "index.html").write_bytes(_page(f"Links for {name}", links, note))
    pages = {f"{name}/": f">{name}" for name in projects}
    (folder / "index.html").write_bytes(_page("Simple index", pages, note))


def write(folder: Path) -> None:
    """Write the index at the folder, as AWS has it at the root of its host.

    Beside it stand one of the light stack, at light/, and a hostile one, at hostile/simple/.
    """
    packages = python_packages()
    _write_index(
        folder, [wheel for package in packages for wheel in _wheels(package)], "stands in for AWS's Neuron index"
    )
    _write_index(folder / "light", light.wheels(), "stands in for all that the light stack needs")
    names = sorted({package.name for package in packages} | set(ONLY_AWS))
    _write_index(folder / "hostile" / "simple", [_hostile(name) for name in names], "an index nobody should trust")
