# SPDX-License-Identifier: GPL-3.0-or-later
"""Say in JSON what a host of the light stack has come to: releases, what serves, the files of both, and the driver.

Left out is what differs between two undisturbed runs: times, logs, compiled Python, and folders to work in.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

RELEASES = Path("/opt/neuronops/releases")
LINK = Path("/opt/aws_neuron_venv_pytorch")
CONFIGURATION = (
    "neuronops/*.env",
    "systemd/system/*.service",
    "systemd/system/*/*",
    "apt/sources.list.d/*",
    "apt/keyrings/*",
    "apt/preferences.d/*",
    "modules-load.d/*",
    "modprobe.d/*",
    "profile.d/*",
    "default/aws-neuron*",
    "needrestart/conf.d/*",
)
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(Z| ?[+-]\d\d:?\d\d)?")
# Names of fields that hold a time as a number, or how long something took.
TIMES = re.compile(r"(^|_)(at|time|times|date|began|ended|since|seen|seconds|duration|timestamp|recorded|activated)$")
# .busy is locked while a module works; uv notes the time of a wheel's file, and RECORD has the hash of that note.
LEFT_OUT = re.compile(r"\.pyc$|\.log$|/__pycache__/|\.busy$|/uv_cache\.json$|/\.lock$")
UV_CACHE = re.compile(r"^.*/uv_cache\.json,.*\n", re.MULTILINE)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not TIMES.search(key)}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return TIME.sub("TIME", value) if isinstance(value, str) else value


def described(path: Path) -> str:
    """What a file is: its mode with the hash of what is in it, or where a link leads."""
    if path.is_symlink():
        return f"-> {path.readlink()}"
    content = path.read_bytes()
    if path.name == "RECORD":
        content = "".join(sorted(UV_CACHE.sub("", content.decode()).splitlines(keepends=True))).encode()
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            content = json.dumps(without_times(json.loads(content.decode())), sort_keys=True).encode()
    return f"{path.stat().st_mode & 0o7777:o} {hashlib.sha256(content).hexdigest()[:16]}"


def release(folder: Path) -> dict[str, Any]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]
    names = folder.glob("lib/python3*/site-packages/*.dist-info")
    return {
        "files": {str(path.relative_to(folder)): described(path) for path in paths if not LEFT_OUT.search(str(path))},
        "freeze": sorted(path.name[: -len(".dist-info")] for path in names),
        "manifests": {
            path.name: without_times(json.loads(path.read_text())) for path in folder.glob("neuronops/*.json")
        },
    }


def said(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode(errors="replace").strip()


def ask(method: str, path: str, key: str, body: dict[str, Any] | None = None) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return f"{answer.status} {answer.read().decode()}"
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {type(error).__name__}"
    finally:
        connection.close()


def main() -> None:
    key, model = sys.argv[1:]
    unit = said("systemctl", "show", "vllm.service", "--property=ActiveState,UnitFileState,NeedDaemonReload")
    paths = {path for pattern in CONFIGURATION for path in Path("/etc").glob(pattern) if not path.is_dir()}
    paths |= set(Path("/usr/local/share/jupyter/kernels").glob("*/*"))
    module = Path("/sys/module/neuron/version")
    releases = sorted(RELEASES.iterdir()) if RELEASES.is_dir() else []
    found = {
        "link": str(LINK.readlink()) if LINK.is_symlink() else None,
        "releases": {folder.name: release(folder) for folder in releases},
        "configuration": {str(path): described(path) for path in sorted(paths) if path.suffix != ".before"},
        "unit": sorted(unit.splitlines()),
        "packages": said("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n").splitlines(),
        "interrupted": sorted(path.name for path in Path("/var/lib/dpkg/updates").iterdir()),
        "driver": module.read_text().strip() if module.exists() else None,
        "answers": {
            "health": ask("GET", "/health", key),
            "models": ask("GET", "/v1/models", key),
            "without a key": ask("GET", "/v1/models", ""),
            "completion": ask("POST", "/v1/completions", key, {"model": model, "prompt": "Hello", "max_tokens": 1}),
        },
    }
    json.dump(found, sys.stdout, sort_keys=True)


main()
