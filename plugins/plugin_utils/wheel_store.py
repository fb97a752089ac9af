# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where built wheels are kept: a folder of the controller, and a mirror that is a folder, an HTTP(S) server or S3.

Each wheel has a folder of its own with a manifest, which is written last and holds the wheel's hash. So a folder
without a manifest holds nothing, and a file that is not what the manifest says is never used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import open_url

MANIFEST = "manifest.json"


class StoreError(Exception):
    """A place for wheels that cannot be used, or a wheel in it that is not the right one; the message says why."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a wheel's folder, or None when it holds no whole wheel."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if sha256(folder / manifest["wheel"]) == manifest["sha256"]:
            return manifest
    except (OSError, ValueError, KeyError):
        # Cut off while it was written, or damaged since: to be made anew.
        pass
    return None


def write(folder: Path, wheel: Path, manifest: dict[str, Any]) -> None:
    """Move the wheel into the folder, then write the manifest beside it; each appears at once or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel.chmod(0o644)
    wheel.replace(folder / manifest["wheel"])
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", delete=False) as file:
        json.dump(manifest, file, indent=2, sort_keys=True)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(folder / MANIFEST)


class Mirror:
    """A second place for wheels: a folder, https://HOST/PATH or s3://BUCKET/PREFIX."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self.scheme = urlsplit(place).scheme
        if self.scheme not in ("", "http", "https", "s3"):
            raise StoreError(f"The mirror {place} is neither a folder nor https:// nor s3://.")

    def fetch(self, name: str, folder: Path) -> dict[str, Any] | None:
        """Bring the wheel of that name into the folder and return its manifest, or None when the mirror has none."""
        text = self._get(f"{name}/{MANIFEST}")
        if text is None:
            return None
        try:
            manifest: dict[str, Any] = json.loads(text)
            content = self._get(f"{name}/{manifest['wheel']}")
        except (ValueError, KeyError) as error:
            raise StoreError(f"{self.place}/{name}/{MANIFEST} is damaged: {error}. Remove it there.") from error
        if content is None or hashlib.sha256(content).hexdigest() != manifest.get("sha256"):
            raise StoreError(
                f"{self.place}/{name}/{manifest['wheel']} is missing or is not what its manifest says. Nothing was "
                "installed; remove the folder there, and it is built anew."
            )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=folder, prefix=".", delete=False) as file:
            file.write(content)
        write(folder, Path(file.name), manifest)
        return manifest

    def put(self, name: str, folder: Path) -> None:
        """Copy a wheel's folder to the mirror, the manifest last."""
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for file in (manifest["wheel"], MANIFEST):
            self._put(f"{name}/{file}", folder / file)

    def _get(self, name: str) -> bytes | None:
        try:
            if self.scheme == "s3":
                return self._s3_get(name)
            if self.scheme:
                content: bytes = open_url(f"{self.place}/{name}", timeout=60).read()
                return content
            path = Path(self.place, name).expanduser()
            return path.read_bytes() if path.is_file() else None
        except HTTPError as error:
            if error.code == 404:
                return None
            raise StoreError(f"{self.place}/{name} cannot be read: {error}") from error
        except OSError as error:
            raise StoreError(f"{self.place}/{name} cannot be read: {error}") from error

    def _put(self, name: str, path: Path) -> None:
        try:
            if self.scheme == "s3":
                self._s3(lambda client, bucket, prefix: client.upload_file(str(path), bucket, prefix + name))
            elif self.scheme:
                open_url(f"{self.place}/{name}", method="PUT", data=path.read_bytes(), timeout=60)
            else:
                target = Path(self.place, name).expanduser()
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{target.name}.partial")
                shutil.copyfile(path, partial)
                partial.replace(target)
        except OSError as error:
            raise StoreError(f"{self.place}/{name} cannot be written: {error}") from error

    def _s3_get(self, name: str) -> bytes | None:
        from botocore.exceptions import ClientError

        def get(client: Any, bucket: str, prefix: str) -> bytes | None:
            try:
                content: bytes = client.get_object(Bucket=bucket, Key=prefix + name)["Body"].read()
                return content
            except ClientError as error:
                if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                    return None
                raise

        found: bytes | None = self._s3(get)
        return found

    def _s3(self, action: Any) -> Any:
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise StoreError(f"The mirror {self.place} needs boto3 on the controller: pip install boto3") from error
        parts = urlsplit(self.place)
        prefix = parts.path.lstrip("/")
        try:
            return action(boto3.client("s3"), parts.netloc, f"{prefix}/" if prefix else "")
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{self.place} cannot be used: {error}") from error
