# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in Debian packages, read with Debian's own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from plugins.plugin_utils import stacks
from sandbox.repositories import host_packages
from sandbox.repositories.deb import Deb
from sandbox.settings import SandboxError

DEBS = {(deb.control["Package"], deb.control["Version"].partition("-")[0]): deb for deb in host_packages.neuron_debs()}


def unpacked(deb: Deb, folder: Path) -> Path:
    path = deb.write(folder)
    subprocess.run(["dpkg-deb", "--raw-extract", path, folder / "root"], check=True)
    return folder / "root"


def test_every_stack_finds_its_host_packages() -> None:
    for name in stacks.load()["stacks"]:
        for package, version in stacks.resolve(name)["host_packages"].items():
            assert (package, version) in DEBS, f"{name} asks for {package} {version}, which AWS did not publish"


def test_a_package_is_one_that_dpkg_reads(tmp_path: Path) -> None:
    root = unpacked(DEBS["aws-neuronx-dkms", "2.21.37.0"], tmp_path)
    source = root / "usr/src/aws-neuronx-2.21.37.0"
    assert '#define NEURON_VERSION "2.21.37.0"' in (source / "release.h").read_text()
    assert 'PACKAGE_VERSION="2.21.37.0"' in (source / "dkms.conf").read_text()
    rules = (root / "lib/udev/rules.d/neuron-udev.rules").read_text().splitlines()
    assert rules[1:] == ['KERNEL=="neuron*", MODE="0666"']  # after the licence
    assert (root / "DEBIAN/conffiles").read_text() == "/etc/modules-load.d/neuron.conf\n"
    assert (root / "DEBIAN/postinst").stat().st_mode & 0o111
    sums = subprocess.run(
        ["md5sum", "--check", "DEBIAN/md5sums"], cwd=root, check=False, capture_output=True, text=True
    )
    assert sums.returncode == 0, sums.stdout


def test_the_same_contents_give_the_same_bytes() -> None:
    again = {deb.filename: deb.content() for deb in host_packages.neuron_debs()}
    assert {deb.filename: deb.content() for deb in DEBS.values()} == again


@pytest.mark.parametrize("deb", DEBS.values(), ids=lambda deb: deb.filename)
def test_dpkg_reads_every_package(deb: Deb, tmp_path: Path) -> None:
    path = deb.write(tmp_path)
    show: list[str | Path] = ["dpkg-deb", "--show", "--showformat=${Package} ${Version}", path]
    shown = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert shown == f"{deb.control['Package']} {deb.control['Version']}"
    listed = subprocess.run(["dpkg-deb", "--contents", path], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1][1:] for line in listed.splitlines() if line.startswith("-")} == set(deb.files)


@pytest.mark.parametrize("deb", DEBS.values(), ids=lambda deb: deb.filename)
def test_scripts_and_tools_are_filled_in_and_parse(deb: Deb) -> None:
    for name, text in deb.scripts.items():
        subprocess.run(["sh", "-n"], input=text.encode(), check=True)
        assert "@" not in text.replace("@neuronops", ""), name
    for path, (content, mode) in deb.files.items():
        if mode == 0o755:
            compile(content, path, "exec")


def test_versions_end_in_a_hash_where_awss_do() -> None:
    with_hash = {deb.control["Package"] for deb in DEBS.values() if "-" in deb.control["Version"]}
    assert with_hash == {"aws-neuronx-runtime-lib", "aws-neuronx-collectives", "aws-neuronx-tools"}
    assert "-" not in DEBS["aws-neuronx-tools", "2.26.14.0"].control["Version"]
    assert "-" in DEBS["aws-neuronx-tools", "2.27.33.0"].control["Version"]


def test_driver_and_runtime_are_coupled_as_documented() -> None:
    breaks = {key: deb.control.get("Breaks") for key, deb in DEBS.items()}
    assert breaks["aws-neuronx-dkms", "2.28.0.0"] is None
    assert breaks["aws-neuronx-dkms", "2.29.0.0"] == "aws-neuronx-runtime-lib (<< 2.33)"
    assert breaks["aws-neuronx-runtime-lib", "2.31.24.0"] is None
    assert breaks["aws-neuronx-runtime-lib", "2.32.31.0"] == "aws-neuronx-dkms (<< 2.27)"


@pytest.mark.parametrize(
    ("version", "first_kernel_without_support"),
    [
        ("2.15.9.0", "6, 3, 0"),
        ("2.16.7.0", "6, 13, 0"),
        ("2.21.37.0", "6, 13, 0"),
        ("2.24.7.0", "6, 18, 0"),
        ("2.26.5.0", "6, 18, 0"),
        ("2.26.10.0", "255, 0, 0"),
    ],
)
def test_a_driver_compiles_up_to_the_kernel_it_was_made_for(version: str, first_kernel_without_support: str) -> None:
    header, _ = DEBS["aws-neuronx-dkms", version].files[f"/usr/src/aws-neuronx-{version}/release.h"]
    assert f"KERNEL_VERSION({first_kernel_without_support})".encode() in header


def test_headers_are_for_the_kernel_and_give_way_to_real_ones() -> None:
    deb = host_packages.headers_deb("6.18.44-x")
    assert deb.control["Package"] == "linux-headers-6.18.44-x"
    assert "/lib/modules/6.18.44-x/build" in deb.scripts["postinst"]
    older = subprocess.run(["dpkg", "--compare-versions", deb.control["Version"], "lt", "6.1.0-1"], check=False)
    assert older.returncode == 0


def test_a_kernel_that_no_package_can_be_named_after_is_refused() -> None:
    with pytest.raises(SandboxError, match="My_Kernel"):
        host_packages.headers_deb("6.1-My_Kernel")
