# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where built wheels are kept: a folder of the controller, and a mirror that is a folder, an HTTPS server or S3.

Each wheel has a folder of its own with a manifest, which is written last and holds the wheel's hash. So a folder
without a manifest holds nothing, and a file that is not what the manifest says is never used. The hash proves that the
file is whole and not where it comes from: every field of a manifest is checked before anything is done with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from ansible.module_utils.urls import open_url
from ansible_collections.neuronops.vllm.plugins.module_utils.addresses import has_credentials, shown
from ansible_collections.neuronops.vllm.plugins.module_utils.files import replacing, sha256, write_at_once
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import FormError, fields, form, sequence, wheel_name
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import requirement as one_requirement

MANIFEST = "manifest.json"
FIELDS = ("wheel", "sha256", "version", "commit", "requirements")
# Where the wheel was built from, as far as who reads the manifest wants to know.
NOTES = ("source", "ref")
MOST_MANIFEST = 1 << 20
MOST_WHEEL = 2 << 30
MOST_REDIRECTS = 5
BLOCK = 1 << 20

# What a manifest is compared with besides its form; raises FormError.
Check = Callable[[dict[str, Any]], None]


class StoreError(Exception):
    """A place for wheels that cannot be used, or a wheel in it that is not the right one; the message says why."""


def checked(
    manifest: Any, check: Check | None = None, what: str = "the manifest", package: str = "vllm"
) -> dict[str, Any]:
    """Return a manifest where it has the fields that it should have, each in its form; raises FormError.

    package: the name of the package that the wheel is one of.
    """
    found = fields(manifest, FIELDS, what, optional=NOTES)
    version = form("version", found["version"], "version")
    result = {
        "wheel": wheel_name(found["wheel"], package, version),
        "sha256": form("SHA-256", found["sha256"], "sha256"),
        "version": version,
        # Sources from an archive have none.
        "commit": "" if found["commit"] == "" else form("commit", found["commit"], "commit"),
        "requirements": [one_requirement(line) for line in sequence(found["requirements"], "requirements", 1000)],
    }
    if "source" in found:
        result["source"] = form("line of text", found["source"], "source")
    if "ref" in found:
        result["ref"] = form("git ref", found["ref"], "ref")
    if check:
        check(result)
    return result


def parsed(text: bytes, check: Check | None = None, package: str = "vllm") -> dict[str, Any]:
    """Return a manifest out of a file's content; raises FormError for everything that is none."""
    try:
        return checked(json.loads(text), check, package=package)
    except FormError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormError(f"it is no JSON: {error}") from error


def read(folder: Path, check: Check | None = None, package: str = "vllm") -> dict[str, Any] | None:
    """Return the manifest of a wheel's folder, or None when it holds no whole wheel, or another than the wanted one."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            manifest = parsed(file.read(MOST_MANIFEST), check, package)
        if sha256(folder / manifest["wheel"]) == manifest["sha256"]:
            return manifest
    except (OSError, ValueError):
        # Cut off while it was written, damaged since, or something else altogether: to be made anew.
        pass
    return None


def write(folder: Path, wheel: Path, manifest: dict[str, Any], package: str = "vllm") -> None:
    """Move the wheel into the folder, then write the manifest beside it; each appears at once or not at all."""
    manifest = checked(manifest, package=package)
    folder.mkdir(parents=True, exist_ok=True)
    wheel.chmod(0o644)
    wheel.replace(folder / manifest["wheel"])
    write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest beside a wheel that is there."""
    write_at_once(folder / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True))


class Mirror:
    """A second place for wheels of one package: a folder, https://HOST/PATH or s3://BUCKET/PREFIX.

    warnings: what the user should hear, though it is no failure.
    """

    def __init__(self, place: str, insecure: bool = False, package: str = "vllm") -> None:
        self.place = place.rstrip("/")
        self.package = package
        self.insecure = insecure
        self.warnings: list[str] = []
        try:
            form("line of text", place)
            self.scheme = urlsplit(place).scheme.lower()
        except ValueError as error:
            raise StoreError(f"The mirror is no address: {error}.") from error
        if self.scheme not in ("", "http", "https", "s3"):
            raise StoreError(f"The mirror {shown(place)} is neither a folder nor https:// nor s3://.")
        if has_credentials(place):
            raise StoreError(
                f"The mirror {shown(place)} is written with credentials, which end up in logs. Put them into .netrc of "
                "the user that runs Ansible."
            )
        if self.scheme == "http" and not insecure:
            raise StoreError(
                f"The mirror {place} is plain http, where everybody between can put another wheel in place of the "
                "right one, which hosts run as root. Use https://, or set vllm_wheel_mirror_insecure (mirror_insecure "
                "of the module) if the network is yours alone. Nothing was changed."
            )

    def manifest(self, name: str, check: Check | None = None) -> dict[str, Any] | None:
        """Return the manifest of the wheel of that name, or None when the mirror has none."""
        blocks = self._get(f"{name}/{MANIFEST}", MOST_MANIFEST)
        if blocks is None:
            return None
        try:
            return parsed(b"".join(blocks), check, self.package)
        except FormError as error:
            raise StoreError(
                f"{self.place}/{name}/{MANIFEST} is damaged or is not that of the wanted wheel: {error}. Nothing was "
                "taken from there; remove it, and the wheel is built anew."
            ) from error

    def fetch(self, name: str, folder: Path, check: Check | None = None) -> dict[str, Any] | None:
        """Bring the wheel of that name into the folder and return its manifest, or None when the mirror has none."""
        manifest = self.manifest(name, check)
        if manifest is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / manifest["wheel"]) as file:
            digest = hashlib.sha256()
            blocks = self._get(f"{name}/{manifest['wheel']}", MOST_WHEEL)
            for block in blocks or ():
                digest.update(block)
                file.write(block)
            if blocks is None or digest.hexdigest() != manifest["sha256"]:
                raise StoreError(
                    f"{self.place}/{name}/{manifest['wheel']} is missing or is not what its manifest says. Nothing "
                    "was installed; remove the folder there, and it is built anew."
                )
        write_manifest(folder, manifest)
        return manifest

    def put(self, name: str, folder: Path) -> None:
        """Copy a wheel's folder to the mirror, the manifest last."""
        manifest = parsed((folder / MANIFEST).read_bytes(), package=self.package)
        for file in (manifest["wheel"], MANIFEST):
            self._put(f"{name}/{file}", folder / file)

    def _get(self, name: str, most: int) -> Iterator[bytes] | None:
        """Return the content of a file in blocks, of which no more than `most` bytes are read, or None for no file."""
        where = f"{self.place}/{name}"
        try:
            if self.scheme == "s3":
                opened = self._s3_open(name)
            elif self.scheme:
                opened = self._open(where)
            else:
                path = Path(self.place, name).expanduser()
                opened = path.open("rb") if path.is_file() else None
        except HTTPError as error:
            if error.code == 404:
                return None
            raise StoreError(f"{where} cannot be read: {error}") from error
        except (OSError, ValueError) as error:
            raise StoreError(f"{where} cannot be read: {error}") from error
        return None if opened is None else _blocks(opened, where, most)

    def _open(self, url: str) -> Any:
        """Open an URL; where it is sent on to another one, that one has to be of a kind that the mirror may be."""
        for _redirect in range(MOST_REDIRECTS):
            try:
                return open_url(url, timeout=60, follow_redirects="none")
            except HTTPError as error:
                if error.code not in (301, 302, 303, 307, 308) or not error.headers.get("Location"):
                    raise
                url = urljoin(url, error.headers["Location"])
            form("line of text", url, "the address that the mirror sends to")
            if urlsplit(url).scheme.lower() not in (("https", "http") if self.insecure else ("https",)):
                raise StoreError(
                    f"The mirror {self.place} sends to {shown(url)[:200]}, which is not https. Nothing was taken from "
                    "there."
                )
        raise StoreError(f"The mirror {self.place} sends from one address to the next without an end.")

    def _put(self, name: str, path: Path) -> None:
        try:
            if self.scheme == "s3":
                self._s3(lambda client, bucket, prefix: client.upload_file(str(path), bucket, prefix + name))
            elif self.scheme:
                open_url(f"{self.place}/{name}", method="PUT", data=path.read_bytes(), timeout=60)
            else:
                target = Path(self.place, name).expanduser()
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as file, path.open("rb") as opened:
                    shutil.copyfileobj(opened, file)
        except OSError as error:
            raise StoreError(f"{self.place}/{name} cannot be written: {error}") from error

    def _s3_open(self, name: str) -> Any:
        def get(client: Any, bucket: str, prefix: str) -> Any:
            from botocore.exceptions import ClientError

            try:
                return client.get_object(Bucket=bucket, Key=prefix + name)["Body"]
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("NoSuchKey", "404"):
                    return None
                if code in ("AccessDenied", "403") and name.endswith(f"/{MANIFEST}"):
                    # Who may not list the bucket is told this for a missing file too.
                    self.warnings.append(
                        f"{self.place}/{name} may not be read, or is not there: S3 gives the same answer to who may "
                        "not list the bucket. It is taken for missing; allow s3:ListBucket to tell them apart."
                    )
                    return None
                raise

        return self._s3(get)

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


def _blocks(opened: Any, where: str, most: int) -> Iterator[bytes]:
    """Read an open file in blocks and close it."""
    try:
        left = most
        while block := opened.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise StoreError(f"{where} is larger than {most} bytes, which is too much for what it should be.")
            yield block
    except StoreError:
        raise
    except Exception as error:
        # Sockets, TLS and S3 each have exceptions of their own for a transfer that was cut off.
        raise StoreError(f"{where} cannot be read: {error}") from error
    finally:
        opened.close()
