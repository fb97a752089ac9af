# SPDX-License-Identifier: GPL-3.0-or-later
"""Download release archives from the package index the machine is set up with, and verify them.

`pip download` would run the archive's setup.py, so this reads the index's pages itself, with pip's and uv's settings.
"""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from sandbox.settings import SandboxError, cache_folder

PROJECT = "vllm"
PINS: dict[str, str] = json.loads(Path(__file__).with_name("sdists.json").read_text(encoding="utf-8"))


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if tag == "a" and name == "href" and value]


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _settings() -> dict[str, list[str]]:
    """Index URLs and folders of links, in the order to try them, and the CA bundle, as uv and pip are set up."""
    found: dict[str, list[str]] = {"index": [], "find-links": [], "cert": []}
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        found["index"] += [
            url.partition("=")[2] if "=" in url.partition(":")[0] else url for url in os.environ.get(name, "").split()
        ]
    found["cert"] += [os.environ[name] for name in ("SSL_CERT_FILE",) if os.environ.get(name)]
    for line in _pip("config", "list").splitlines():
        match = re.match(r"[^=]*\.(index-url|extra-index-url|find-links|cert)=(.*)", line)
        if match:
            kind = "index" if match[1].endswith("index-url") else match[1]
            found[kind] += match[2].strip("'").replace("\\n", " ").split()
    # pip's help names the index that it uses when nothing else is set.
    default = re.search(r"--index-url.*?\(default\s+(\S+?)\)", _pip("install", "--help"), re.DOTALL)
    found["index"] += [default[1]] if default else []
    return {kind: list(dict.fromkeys(values)) for kind, values in found.items()}


def public_index() -> str | None:
    """The index that this machine takes everything else from, without a password; None when that is only folders."""
    urls = [url for url in _settings()["index"] if url.startswith(("http://", "https://"))]
    return _without_secret(urls[0]) if urls else None


def _get(url: str, context: ssl.SSLContext) -> bytes:
    parts = urllib.parse.urlsplit(url)
    plain = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(plain)  # noqa: S310 - public_index() takes HTTP alone
    if parts.username:
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:  # noqa: S310 - the same
        content: bytes = answer.read()
    return content


def _from_index(index: str, filename: str, context: ssl.SSLContext) -> bytes | None:
    page = f"{index.rstrip('/')}/{PROJECT}/"
    parser = _Links()
    if page.startswith("file:"):
        page += "index.html"
    parser.feed(_get(page, context).decode())
    for link in parser.found:
        url = urllib.parse.urljoin(page, link)
        if urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2] == filename:
            return _get(url.partition("#")[0], context)
    return None


def _without_secret(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def fetch(version: str) -> Path:
    """Return the path of a verified release archive of vLLM, downloading it when the cache does not have it."""
    filename = f"{PROJECT}-{version}.tar.gz"
    path = cache_folder() / "sdists" / filename
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == PINS[version]:
        return path
    settings = _settings()
    context = ssl.create_default_context(cafile=settings["cert"][0] if settings["cert"] else None)
    failures = []
    for place in [*settings["find-links"], *settings["index"]]:
        try:
            if place in settings["find-links"]:
                content = (Path(place) / filename).read_bytes() if (Path(place) / filename).exists() else None
            else:
                content = _from_index(place, filename, context)
        except (OSError, ValueError) as error:
            failures.append(f"{_without_secret(place)}: {error}")
            continue
        if content is None:
            failures.append(f"{_without_secret(place)}: has no {filename}")
        elif hashlib.sha256(content).hexdigest() != PINS[version]:
            failures.append(f"{_without_secret(place)}: its {filename} has another sha256 than {PINS[version]}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(f".{os.getpid()}")
            new.write_bytes(content)
            new.replace(path)
            return path
    raise SandboxError(
        f"vLLM's release archive {filename} cannot be had. Tried:\n  " + "\n  ".join(failures)
        + "\nSet PIP_INDEX_URL (or UV_DEFAULT_INDEX) to a package index that has it."
    )  # fmt: skip
