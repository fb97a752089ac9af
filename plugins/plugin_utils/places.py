# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places for files that several runs and controllers share: a folder, an HTTPS server or a bucket of S3."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from ansible import constants
from ansible.module_utils.urls import open_url
from ansible_collections.neuronops.vllm.plugins.module_utils.addresses import has_credentials, shown
from ansible_collections.neuronops.vllm.plugins.module_utils.files import replacing
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import form

MOST_REDIRECTS = 5
BLOCK = 1 << 20
TRIES = 5
# What S3 answers where a file is there already, and where another writes it at this very moment.
TAKEN = ("PreconditionFailed", "412")
BEING_WRITTEN = ("ConditionalRequestConflict", "409")
DENIED = ("AccessDenied", "403")
# What file systems answer that have no hard links.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class StoreError(Exception):
    """A place that cannot be used, or a file in it that is not the right one; the message says why."""


def is_bucket(place: str) -> bool:
    """Return whether a place is one of S3."""
    return place.lower().startswith("s3:")


def canonical(place: str) -> str:
    """Return a place without what changes nothing: to S3 `a//b` is another name than `a/b`, and nobody means that."""
    scheme, separator, rest = place.partition("://")
    return (f"{scheme.lower()}://{re.sub('/+', '/', rest)}" if separator and is_bucket(place) else place).rstrip("/")


def working_folder(place: str) -> Path:
    """Return the folder of the controller for what is kept in a place.

    For a bucket it is one of the run's own temporary folder: what the first host of a run has fetched is the same for
    all others, and the next run asks the bucket again.
    """
    if not is_bucket(place):
        return Path(os.path.expandvars(place)).expanduser().absolute()
    name = hashlib.sha256(canonical(place).encode()).hexdigest()[:16]
    return Path(constants.DEFAULT_LOCAL_TMP) / f"neuronops-{name}"


class Place:
    """A folder, https://HOST/PATH or s3://BUCKET/PREFIX.

    warnings: what the user should hear, though it is no failure.
    """

    what = "The place"

    def __init__(self, place: str, insecure: bool = False) -> None:
        self.place = canonical(place)
        self.insecure = insecure
        self.warnings: list[str] = []
        self._client: Any = None
        try:
            form("line of text", place)
            parts = urlsplit(place)
            self.scheme = parts.scheme.lower()
        except ValueError as error:
            raise StoreError(f"{self.what} is no address: {error}.") from error
        if self.scheme not in ("", "http", "https", "s3"):
            raise StoreError(f"{self.what} {shown(place)} is neither a folder nor https:// nor s3://.")
        if has_credentials(place):
            raise StoreError(
                f"{self.what} {shown(place)} is written with credentials, which end up in logs. Put them into .netrc "
                "of the user that runs Ansible."
            )
        if self.scheme == "s3" and not parts.netloc:
            raise StoreError(f"{self.what} {place} names no bucket: write s3://BUCKET/PREFIX.")
        if self.scheme == "http" and not insecure:
            raise StoreError(
                f"{self.what} {place} is plain http, where everybody between can put another wheel in place of the "
                "right one, which hosts run as root. Use https://, or set vllm_wheel_mirror_insecure (mirror_insecure "
                "of the module) if the network is yours alone. Nothing was changed."
            )

    def get_file(self, name: str, most: int, denied_is_missing: bool = False) -> Iterator[bytes] | None:
        """Return the content of a file in blocks, of which no more than `most` bytes are read, or None for no file.

        denied_is_missing: whether a file that S3 does not let us read is taken for none, with a warning: who may not
        list a bucket is told the same for a missing one.
        """
        where = f"{self.place}/{name}"
        try:
            if self.scheme == "s3":
                opened = self._s3_open(name, denied_is_missing)
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

    def put_file(self, name: str, content: bytes | Path, first: bool = False) -> bool:
        """Write a file; returns whether it is there now.

        first: only where there is none yet, so that of two who write at a time the first one's stays. A server that
        does not know `If-None-Match` takes the last one's.
        """
        where = f"{self.place}/{name}"
        try:
            if self.scheme == "s3":
                return self._s3_put(name, content, first)
            if self.scheme:
                data = content if isinstance(content, bytes) else content.read_bytes()
                headers = {"If-None-Match": "*"} if first else {}
                open_url(where, method="PUT", data=data, timeout=60, headers=headers)
            else:
                _write(Path(where).expanduser(), content, first)
        except FileExistsError:
            return False
        except OSError as error:
            if first and isinstance(error, HTTPError) and error.code == 412:
                return False
            raise StoreError(f"{where} cannot be written: {error}") from error
        return True

    def names(self, start: str) -> list[str]:
        """Return the names of the folders in the place that begin so."""
        if self.scheme == "":
            return sorted(path.name for path in Path(self.place).expanduser().glob(f"{start}*") if path.is_dir())
        if self.scheme != "s3":
            return []

        def listed(client: Any, bucket: str, prefix: str) -> list[str]:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix + start, Delimiter="/"
            )
            return [
                entry["Prefix"][len(prefix) :].rstrip("/") for page in pages for entry in page.get("CommonPrefixes", [])
            ]

        return sorted(self._s3(listed))

    def writable(self, name: str) -> bool:
        """Return whether a file may be put there, by putting an empty one; raises StoreError as put_file() does."""
        try:
            return self.put_file(name, b"")
        except StoreError as error:
            if getattr(error.__cause__, "response", {}).get("Error", {}).get("Code") in DENIED:
                return False
            raise

    def empty(self) -> bool:
        """Return whether a bucket has nothing under the prefix, as far as we may list it."""

        def listed(client: Any, bucket: str, prefix: str) -> bool:
            return not client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount")

        try:
            return bool(self._s3(listed))
        except StoreError:
            return True

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
                    f"{self.what} {self.place} sends to {shown(url)[:200]}, which is not https. Nothing was taken from "
                    "there."
                )
        raise StoreError(f"{self.what} {self.place} sends from one address to the next without an end.")

    def _s3_open(self, name: str, denied_is_missing: bool) -> Any:
        def get(client: Any, bucket: str, prefix: str) -> Any:
            from botocore.exceptions import ClientError

            try:
                return client.get_object(Bucket=bucket, Key=prefix + name)["Body"]
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("NoSuchKey", "404"):
                    return None
                if code in DENIED and denied_is_missing:
                    self.warnings.append(
                        f"{self.place}/{name} may not be read, or is not there: S3 gives the same answer to who may "
                        "not list the bucket. It is taken for missing; allow s3:ListBucket to tell them apart."
                    )
                    return None
                raise

        return self._s3(get)

    def _s3_put(self, name: str, content: bytes | Path, first: bool) -> bool:
        def put(client: Any, bucket: str, prefix: str) -> bool:
            from botocore.exceptions import ClientError

            conditions = {"IfNoneMatch": "*"} if first else {}
            for tries_left in reversed(range(TRIES)):
                try:
                    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as body:
                        client.put_object(Bucket=bucket, Key=prefix + name, Body=body, **conditions)
                    return True
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    if first and code in TAKEN:
                        return False
                    if not first or code not in BEING_WRITTEN or not tries_left:
                        raise
                    time.sleep(1)
            return False

        return bool(self._s3(put))

    def _s3(self, action: Any) -> Any:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
        except ImportError as error:
            raise StoreError(f"{self.what} {self.place} needs boto3 on the controller: pip install boto3") from error
        parts = urlsplit(self.place)
        prefix = parts.path.lstrip("/")
        try:
            if self._client is None:
                # Of boto3's own, a bucket that does not answer is waited for a quarter of an hour.
                config = Config(connect_timeout=10, retries={"mode": "standard", "max_attempts": 3})
                self._client = boto3.client("s3", config=config)
            return action(self._client, parts.netloc, f"{prefix}/" if prefix else "")
        except ParamValidationError as error:
            if "IfNoneMatch" not in str(error):
                raise StoreError(f"{self.place} cannot be used: {error}") from error
            # Files that must not be overwritten need it.
            raise StoreError(
                f"{self.place} needs boto3 1.35.2 or newer on the controller, which has {boto3.__version__}: "
                f"pip install --upgrade boto3 ({error})"
            ) from error
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{self.place} cannot be used: {error}") from error


def _write(target: Path, content: bytes | Path, first: bool) -> None:
    """Write a file at once; raises FileExistsError where it is to be the first, and is not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if first and target.exists():
        raise FileExistsError(str(target))
    # A link fails where there is a file by now; a rename would take its place.
    whole = target.with_name(f".{target.name}.{secrets.token_hex(8)}") if first else target
    try:
        with replacing(whole) as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with content.open("rb") as opened:
                    shutil.copyfileobj(opened, file)
        if first:
            try:
                target.hardlink_to(whole)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                if target.exists():
                    raise FileExistsError(str(target)) from error
                whole.replace(target)
    finally:
        if first:
            whole.unlink(missing_ok=True)


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
