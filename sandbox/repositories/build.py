# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the tree that server.py serves.

    <folder>/www/<host>/...   what is served; <folder>/www/.control holds the faults
    <folder>/keys/            private keys, never served
    <folder>/facts.json       fingerprints, commits, and hashes of what each host's folder was made from

Each part is made again when what it is made from changes; the keys stay. The folder can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox.repositories import (
    apt,
    faults,
    git_remote,
    host_packages,
    keys,
    light,
    plugin_remote,
    python_index,
    sdists,
)
from sandbox.repositories.server import APT, GIT, KEY, PIP, PUBLIC_INDEX

HERE = Path(__file__).parent
REPOSITORY = "vllm-project/vllm"


def _hash(*inputs: Path | str) -> str:
    """A hash of the files (or all files under a folder) and the strings."""
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            digest.update(item.encode())
            continue
        paths = sorted(item.rglob("*")) if item.is_dir() else [item]
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(item.parent)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _part(folder: Path, inputs: str, make: Callable[[Path], Any]) -> Any:
    """Make the folder when it is not there or was made from something else; return what `make` returned then."""
    stamp = folder.with_name(f".{folder.name}.json")
    if folder.is_dir() and stamp.exists():
        last = json.loads(stamp.read_text(encoding="utf-8"))
        if last["inputs"] == inputs:
            return last["result"]
    stamp.unlink(missing_ok=True)
    new = folder.with_name(f".{folder.name}.new")
    for old in (new, folder):
        shutil.rmtree(old, ignore_errors=True)
    new.mkdir(parents=True)
    result = make(new)
    new.replace(folder)
    stamp.write_text(json.dumps({"inputs": inputs, "result": result}), encoding="utf-8")
    return result


def _apt(folder: Path, signing: keys.Keys, kernel: str) -> None:
    suites = (*apt.UBUNTU, *apt.DEBIAN)
    apt.write(folder, host_packages.neuron_debs(), signing, suites, "stands in for AWS Neuron", ("signing", "second"))
    (folder / KEY.lstrip("/")).write_bytes(signing.public("signing"))
    (folder / "keys").mkdir()
    for name in ("expired", "expiring", "wrong", "second"):
        (folder / "keys" / f"{name}.asc").write_bytes(signing.public(name))
    # The headers of the running kernel have a repository and a key of their own: no fault and no test touches them.
    apt.write(
        folder / "sandbox", [host_packages.headers_deb(kernel)], signing, apt.DEBIAN, "neuronops sandbox", ("own",)
    )
    (folder / "sandbox" / "key.asc").write_bytes(signing.public("own"))


def _git(folder: Path, signing: keys.Keys) -> dict[str, dict[str, str]]:
    original = folder / f"{REPOSITORY}.git"
    commits = git_remote.write(original)
    git_remote.write_moved(original.with_name("vllm-moved.git"), original)
    with signing.signer("own") as signer:
        git_remote.write_signed(original.with_name("vllm-signed.git"), original, signer)
    light_commits = light.write_git(folder / f"{light.REPOSITORY}.git")
    plugin_commits = plugin_remote.write(folder / f"{plugin_remote.REPOSITORY}.git", plugin_remote.clone())
    # Where GitHub has the keys of an account.
    (folder / f"{original.parent.name}.gpg").write_bytes(signing.public("own"))
    return {"commits": commits, "light_commits": light_commits, "plugin_commits": plugin_commits}


def _public_index(folder: Path) -> str | None:
    url = sdists.public_index()
    if url:
        (folder / PUBLIC_INDEX.name).write_text(url, encoding="utf-8")
    return url


def _inputs(keys_hash: str, expiring_key_hash: str, kernel: str) -> dict[str, str]:
    """For each host, a hash of everything that its folder is made from."""
    made_by = {
        APT: ["apt.py", "build.py", "deb.py", "files", "host_packages.py", "keys.py", "releases.json", "releases.py"],
        PIP: ["light.py", "python_index.py", "releases.json", "releases.py", "wheels.py"],
        GIT: ["build.py", "files/vllm", "git_remote.py", "light.py", "plugin_remote.py", "sdists.json"],
    }
    plugin: list[Path | str] = [plugin_remote.STAND_IN, plugin_remote.clone(), json.dumps(plugin_remote.entries())]
    more: dict[str, list[Path | str]] = {
        APT: [keys_hash, expiring_key_hash, kernel],
        PIP: [python_index.EMULATION, light.FILE],
        GIT: [keys_hash, light.FILE, light.SOURCES, *plugin],
    }
    return {host: _hash(*(HERE / name for name in names), *more[host]) for host, names in made_by.items()}


def build(folder: Path, kernel: str | None = None) -> dict[str, Any]:
    """Make the tree under the folder, or what of it is out of date, and return the facts about it.

    kernel: release of the kernel to make stand-in headers for; the running one when None.
    """
    kernel = kernel or platform.release()
    www = folder / "www"
    (www / faults.CONTROL).parent.mkdir(parents=True, exist_ok=True)
    signing = keys.ensure(folder / "keys")
    public_keys = [path for path in sorted(signing.folder.glob("*.asc")) if path.name != "expiring.asc"]
    inputs = _inputs(_hash(*public_keys), _hash(signing.folder / "expiring.asc"), kernel)
    _part(www / APT, inputs[APT], lambda new: _apt(new, signing, kernel))
    _part(www / PIP, inputs[PIP], python_index.write)
    commits = _part(www / GIT, inputs[GIT], lambda new: _git(new, signing))
    environment = json.dumps({name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "UV_"))})
    public = _part(www / PUBLIC_INDEX.parent, _hash(environment), _public_index)
    facts = {
        "fingerprint": signing.fingerprints["signing"],
        "fingerprints": signing.fingerprints,
        "kernel": kernel,
        **commits,
        "public_index": public,
        "inputs": inputs,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts
