# SPDX-License-Identifier: GPL-3.0-or-later
"""Write wheels: the same bytes for the same contents."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from dataclasses import dataclass, field


@dataclass
class Wheel:
    """Contents of one wheel. `version` may have a local part; `tag` is python-abi-platform."""

    name: str
    version: str
    tag: str
    summary: str
    files: dict[str, bytes]
    requires: list[str] = field(default_factory=list)
    requires_python: str = ""
    console_scripts: dict[str, str] = field(default_factory=dict)

    @property
    def _stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    @property
    def filename(self) -> str:
        return f"{self._stem}-{self.tag}.whl"

    def _metadata(self) -> str:
        lines = ["Metadata-Version: 2.1", f"Name: {self.name}", f"Version: {self.version}", f"Summary: {self.summary}"]
        if self.requires_python:
            lines.append(f"Requires-Python: {self.requires_python}")
        return "\n".join([*lines, *(f"Requires-Dist: {requirement}" for requirement in self.requires), ""])

    def content(self) -> bytes:
        info = f"{self._stem}.dist-info"
        pure = "true" if self.tag.endswith("-any") else "false"
        files = {
            **self.files,
            f"{info}/METADATA": self._metadata().encode(),
            f"{info}/WHEEL": (
                f"Wheel-Version: 1.0\nGenerator: sandbox\nRoot-Is-Purelib: {pure}\nTag: {self.tag}\n".encode()
            ),
        }
        if self.console_scripts:
            scripts = "".join(f"{name} = {function}\n" for name, function in self.console_scripts.items())
            files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
        record = "".join(f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in files.items())
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in files.items():
                entry = zipfile.ZipInfo(path)  # dated 1980, whatever the clock says
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
