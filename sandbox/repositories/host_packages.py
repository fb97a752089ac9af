# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins for AWS's host packages, and for the headers of a kernel that Debian does not have."""

from __future__ import annotations

import re
from pathlib import Path

from sandbox.repositories.deb import Deb
from sandbox.repositories.releases import Package, build_hash, host_packages, number
from sandbox.settings import SandboxError

FILES = Path(__file__).with_name("files")
MAINTAINER = "The neuronops.vllm sandbox <sandbox@neuronops.invalid>"

# The first kernel that a driver does not compile on: drivers before the version named on the left.
FIRST_KERNEL_WITHOUT_SUPPORT = [("2.16.7.0", "6, 3, 0"), ("2.24.7.0", "6, 13, 0"), ("2.26.10.0", "6, 18, 0")]


def _filled(path: str, values: dict[str, str]) -> str:
    text = (FILES / path).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    unfilled = re.search(r"@[A-Z_]+@", text)
    if unfilled:
        raise ValueError(f"{path}: nothing fills in {unfilled[0]}")
    return text


def _control(package: Package, version: str, description: str, **fields: str) -> dict[str, str]:
    return {
        "Package": package.name,
        "Version": version,
        "Architecture": "amd64",
        "Maintainer": MAINTAINER,
        **fields,
        "Section": "misc",
        "Priority": "optional",
        "Description": f"{description} (stand-in of the neuronops sandbox for AWS's package)",
    }


def _dkms(package: Package) -> Deb:
    version = number(package.version)
    below = next((kernel for fixed, kernel in FIRST_KERNEL_WITHOUT_SUPPORT if version < number(fixed)), "255, 0, 0")
    values = {
        "VERSION": package.version,
        "BUILD": build_hash(package.name, package.version, 40),
        "KERNEL_BELOW": below,
        "SYSFS_MODE": "0400" if version < number("2.28") else "0444",
        "REFUSES_REMOVAL_IN_USE": "yes" if version >= number("2.26.5.0") else "no",
    }
    source = f"/usr/src/aws-neuronx-{package.version}"
    relations = {"Depends": "dkms, make, gcc", "Conflicts": "aws-neuron-dkms", "Replaces": "aws-neuron-dkms"}
    if version >= number("2.29"):
        relations["Breaks"] = "aws-neuronx-runtime-lib (<< 2.33)"
    return Deb(
        _control(package, package.version, "Neuron driver in DKMS format", **relations),
        {
            **{
                f"{source}/{name}": (_filled(f"dkms/{name}", values).encode(), 0o644)
                for name in ("neuron.c", "release.h", "Makefile", "dkms.conf")
            },
            "/lib/udev/rules.d/neuron-udev.rules": (_filled("dkms/neuron-udev.rules", {}).encode(), 0o644),
            "/etc/modules-load.d/neuron.conf": (_filled("dkms/neuron.conf", {}).encode(), 0o644),
        },
        {name: _filled(f"dkms/{name}", values) for name in ("preinst", "postinst", "prerm")},
        ["/etc/modules-load.d/neuron.conf"],
    )


def _library(package: Package, description: str, library: str, **relations: str) -> Deb:
    text = f"This file stands in for {library} of {package.name} {package.version}; it holds no code.\n"
    return Deb(
        _control(
            package, f"{package.version}-{build_hash(package.name, package.version, 9)}", description, **relations
        ),
        {f"/opt/aws/neuron/lib/{library}": (text.encode(), 0o644)},
    )


def _collectives(package: Package) -> Deb:
    return _library(package, "Neuron collectives library", "libnccom.so")


def _runtime(package: Package) -> Deb:
    # The runtime of SDK 2.30 and later does not work with the driver of 2.28 and before.
    relations = {"Breaks": "aws-neuronx-dkms (<< 2.27)"} if number(package.version) >= number("2.32") else {}
    return _library(package, "Neuron runtime library", "libnrt.so.1", **relations)


def _tools(package: Package) -> Deb:
    sdk = number(package.sdk)
    values = {
        "VERSION": package.version,
        "SDK": package.sdk,
        "GENERATION": "1" if sdk < (2, 25) else "2" if sdk < (2, 32) else "3",
        "RUNTIME": next(other.version for other in host_packages() if _is_runtime_of(other, package)),
    }
    suffix = f"-{build_hash(package.name, package.version, 9)}" if number(package.version) >= number("2.27.33") else ""
    return Deb(
        _control(
            package, f"{package.version}{suffix}", "Neuron tools", Depends="python3", Conflicts="aws-neuron-tools"
        ),
        {"/opt/aws/neuron/bin/neuron-ls": (_filled("neuron-ls", values).encode(), 0o755)},
    )


def _is_runtime_of(other: Package, tools: Package) -> bool:
    """The runtime of the same SDK release, or the one before it when that release brought no new one."""
    return other.name == "aws-neuronx-runtime-lib" and number(other.sdk)[:2] == number(tools.sdk)[:2]


_KINDS = {
    "aws-neuronx-dkms": _dkms,
    "aws-neuronx-collectives": _collectives,
    "aws-neuronx-runtime-lib": _runtime,
    "aws-neuronx-tools": _tools,
}


def neuron_debs() -> list[Deb]:
    """Every version of every host package that AWS published."""
    return [_KINDS[package.name](package) for package in host_packages()]


def headers_deb(kernel: str) -> Deb:
    """Stand-in headers of the running kernel, whose module tree it points at Debian's own headers.

    Containers share the machine's kernel, for which Debian has no headers. Modules are really built, against the kernel
    of Debian's cloud images. The version is so low that a real package of that name goes before it.
    """
    name = f"linux-headers-{kernel}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
        raise SandboxError(f"The running kernel is called {kernel!r}, which cannot be part of a Debian package's name.")
    return Deb(
        {
            "Package": name,
            "Version": "0~sandbox1",
            "Architecture": "amd64",
            "Maintainer": MAINTAINER,
            "Depends": "linux-headers-cloud-amd64",
            "Section": "kernel",
            "Priority": "optional",
            "Description": f"Stand-in of the neuronops sandbox for the headers of kernel {kernel}",
        },
        # depmod complains about a module tree without these two.
        {f"/lib/modules/{kernel}/modules.{kind}": (b"", 0o644) for kind in ("builtin", "order")},
        {name: _filled(f"headers/{name}", {"KERNEL": kernel}) for name in ("postinst", "prerm")},
    )
