# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Built wheels and their manifests, in a folder of the controller and in other places.

Each wheel has a folder of its own with a manifest, which is written last and holds the wheel's hash. So a folder
without a manifest holds nothing, and a file that is not what the manifest says is never used. The hash proves that the
file is whole and not where it comes from: every field of a manifest is checked before anything is done with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.neuronops.vllm.plugins.module_utils.files import replacing, sha256, write_at_once
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import FormError, fields, form, sequence, wheel_name
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import requirement as one_requirement
from ansible_collections.neuronops.vllm.plugins.plugin_utils.places import Place, StoreError

__all__ = ["FIELDS", "MANIFEST", "Mirror", "StoreError", "checked", "parsed", "read", "write", "write_manifest"]

MANIFEST = "manifest.json"
FIELDS = ("wheel", "sha256", "version", "commit", "requirements")
# Where the wheel was built from, as far as who reads the manifest wants to know.
NOTES = ("source", "ref")
MOST_MANIFEST = 1 << 20
MOST_WHEEL = 2 << 30

# What a manifest is compared with besides its form; raises FormError.
Check = Callable[[dict[str, Any]], None]


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


class Mirror(Place):  # type: ignore[misc]  # mypy does not follow the collection's name
    """Wheels of one package in a folder, at https://HOST/PATH or in s3://BUCKET/PREFIX."""

    what = "The mirror"

    def __init__(self, place: str, insecure: bool = False, package: str = "vllm") -> None:
        super().__init__(place, insecure)
        self.package = package

    def manifest(self, name: str, check: Check | None = None) -> dict[str, Any] | None:
        """Return the manifest of the wheel of that name, or None when the mirror has none."""
        blocks = self.get_file(f"{name}/{MANIFEST}", MOST_MANIFEST, denied_is_missing=True)
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
            # A folder of wheels that was copied to a mirror by hand has the wheel under its own name.
            blocks = self.get_file(f"{name}/{_name_there(manifest)}", MOST_WHEEL, denied_is_missing=True)
            if blocks is None:
                blocks = self.get_file(f"{name}/{manifest['wheel']}", MOST_WHEEL)
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

    def put(self, name: str, folder: Path) -> bool:
        """Copy a wheel's folder to the mirror, the manifest last; returns whether the mirror has this wheel now.

        Of two controllers that have built the same, the mirror keeps what the first one has put there: each wheel has
        a name there of its own, and the manifest is only written where there is none.
        """
        manifest = parsed((folder / MANIFEST).read_bytes(), package=self.package)
        self.put_file(f"{name}/{_name_there(manifest)}", folder / manifest["wheel"])
        return bool(self.put_file(f"{name}/{MANIFEST}", folder / MANIFEST, first=True))


def _name_there(manifest: dict[str, Any]) -> str:
    """Return the name of a wheel's file in a mirror, where another of the same name may lie beside it."""
    return f"{manifest['sha256'][:16]}-{manifest['wheel']}"
