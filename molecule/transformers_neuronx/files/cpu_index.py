# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a stand-in for PyTorch's index of builds for the CPU: empty wheels, and one that should not be there."""

import sys
import zipfile
from pathlib import Path


def wheel(name: str, version: str, requirements: list[str]) -> None:
    path = Path(sys.argv[1], name, f"{name}-{version}-py3-none-any.whl")
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {line}" for line in requirements),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        folder = f"{name}-{version}.dist-info"
        archive.writestr(f"{folder}/METADATA", "\n".join(metadata) + "\n")
        archive.writestr(
            f"{folder}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{folder}/RECORD", "")


wheel("torch", "2.5.1+cpu", ["sympy", "networkx", "jinja2", "fsspec", "filelock", "typing-extensions"])
wheel("torchvision", "0.20.1+cpu", ["torch==2.5.1", "numpy"])
wheel("numpy", "99.0", [])
