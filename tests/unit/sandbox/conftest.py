# SPDX-License-Identifier: GPL-3.0-or-later
"""A served tree without downloads, and its server on the loopback."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.repositories import apt, faults, git_remote, host_packages, keys, python_index, sdists, server

ARCHIVES = ("0.3.3", "0.9.2")


def archive(version: str) -> bytes:
    """A release archive like vLLM's: the sources, and what only an archive has."""
    files = {
        "setup.py": f"version = '{version}'\n",
        "setup.cfg": "[egg_info]\ntag_build = \ntag_date = 0\n",
        "PKG-INFO": f"Version: {version}\n",
        "vllm.egg-info/SOURCES.txt": "setup.py\n",
        "vllm/__init__.py": "",
        "vllm/_version.py": f"version = '{version}'\n",
        ".gitignore": "*.so\n/vllm/ignored.py\n",
        "vllm/ignored.py": "it was in the archive, so it is in the commit\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"vllm-{version}/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Small release archives in the place of vLLM's."""
    folder = tmp_path_factory.mktemp("archives")
    for version in ARCHIVES:
        (folder / version).write_bytes(archive(version))
    patch = pytest.MonkeyPatch()
    patch.setattr(sdists, "PINS", dict.fromkeys(ARCHIVES, "0" * 64))
    patch.setattr(sdists, "fetch", lambda version: folder / version)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def signing(tmp_path_factory: pytest.TempPathFactory) -> keys.Keys:
    return keys.ensure(tmp_path_factory.mktemp("keys"))


@dataclass
class Served:
    """The running server: its folder, its address as a proxy, and what it has logged."""

    root: Path
    proxy: str
    log_file: Path
    commits: dict[str, str]
    fingerprints: dict[str, str]

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a client that reaches the hosts through the server and has no other settings."""
        return {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "http_proxy": self.proxy,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "UV_HTTP_RETRIES": "0",
        }

    def fault(self, **values: str) -> None:
        faults.write(self.root, values)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, archives: None, signing: keys.Keys) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("www")
    folder = root / server.APT
    debs = [deb for deb in host_packages.neuron_debs() if deb.control["Version"].startswith(("2.21.37", "2.25.57"))]
    apt.write(folder, debs, signing, ("bookworm",), "test", ("signing", "second"))
    (folder / server.KEY.lstrip("/")).write_bytes(signing.public("signing"))
    (folder / "keys").mkdir()
    (folder / "keys" / "expired.asc").write_bytes(signing.public("expired"))
    (folder / "sandbox").mkdir()
    (folder / "sandbox" / "key.asc").write_bytes(signing.public("own"))
    python_index.write(root / server.PIP)
    repository = root / server.GIT / "vllm-project" / "vllm.git"
    commits = git_remote.write(repository)
    git_remote.write_moved(repository.with_name("vllm-moved.git"), repository)
    with signing.signer("own") as signer:
        git_remote.write_signed(repository.with_name("vllm-signed.git"), repository, signer)
    (root / server.GIT / "vllm-project.gpg").write_bytes(signing.public("own"))
    (root / server.PUBLIC_INDEX).parent.mkdir()
    (root / server.PUBLIC_INDEX).write_text("http://public.invalid/simple/")
    (root.parent / "secret").write_text("not served\n")
    log = tmp_path_factory.mktemp("log") / "requests.log"
    with server.Server(("127.0.0.1", 0), root, log, None) as instance:
        thread = threading.Thread(target=instance.serve_forever, daemon=True)
        thread.start()
        yield Served(root, f"http://127.0.0.1:{instance.server_port}", log, commits, signing.fingerprints)
        instance.shutdown()


@pytest.fixture
def served(running: Served) -> Iterator[Served]:
    yield running
    running.fault()
