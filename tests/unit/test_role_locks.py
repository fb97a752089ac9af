# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks can be had before there is an environment, and are the same when there is one.

The roles run through ansible-playbook on this machine, and uv resolves with a small index of this test's own.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.plugin_utils import stacks, wheel_store

from tests.unit.role_variables import CHECKOUT
from tests.unit.tiny_wheel import make_wheel

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
STACK = stacks.resolve("vllm-0.9.2")
PUBLIC = {
    "pip": "24.0",
    "setuptools": "79.0.1",
    "wheel": "0.45.1",
    "demo": "2024.7.4",
    "torch": STACK["python_packages"]["torch"],
    "torchvision": STACK["python_packages"]["torchvision"],
    "fastapi": "0.115.0",
}
NEURON = {name: version for name, version in STACK["python_packages"].items() if name not in PUBLIC}
# What the index has besides, for a stack whose packages another role installs.
PLUGINS = {name: stacks.resolve(name)["python_packages"] for name in ("vllm-0.13.0", "optimum-0.4.5")}
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Lock
      ansible.builtin.include_role:
        name: "neuronops.vllm.{{ item }}"
        tasks_from: lock
      loop: "{{ roles_to_lock }}"
    - name: Tell
      ansible.builtin.copy:
        content: "{{ told | to_json }}"
        dest: "{{ answer }}"
        mode: "0644"
      check_mode: false
      changed_when: false
      vars:
        told:
          layers:
            - "{{ __neuron_venv_layer | default({}) }}"
            - "{{ __neuron_packages_layer | default({}) }}"
            - "{{ __vllm_layer | default({}) }}"
          directory: "{{ __vllm_wheel.directory | default('') }}"
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        """Say nothing of what was asked for."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a public index and Neuron's, and return the address that both are below."""
    root = tmp_path_factory.mktemp("indexes")
    for place, packages in (("public", PUBLIC), ("neuron", NEURON)):
        for name, version in packages.items():
            make_wheel(root / place / name, name, version)
    for packages in PLUGINS.values():
        for name, version in packages.items():
            make_wheel(root / ("public" if name in PUBLIC else "neuron") / name, name, version)
    handler = functools.partial(Quiet, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path, index: str) -> Callable[..., dict[str, Any]]:
    """Run the tasks `lock` of roles on this machine, and return the facts that they leave."""
    options = {
        "ansible_python_interpreter": sys.executable,
        "neuron_stack": "vllm-0.9.2",
        "neuron_stack_overrides": {"pythons": [VERSION]},
        "neuron_venv_python": f"/usr/bin/python{VERSION}",
        "neuron_venv_path": str(tmp_path / "venv"),
        "neuron_venv_packages": ["demo"],
        "neuron_venv_kernel_environment": "/opt/active",
        "neuron_venv_lock_path": str(tmp_path / "locks"),
        "neuron_venv_index_url": f"{index}/public/",
        "neuron_venv_neuron_index_url": f"{index}/neuron/",
        "neuron_venv_environment": {"UV_CACHE_DIR": str(tmp_path / "uv")},
        "transformers_neuronx_venv": str(tmp_path / "venv"),
        "nxd_inference_venv": str(tmp_path / "venv"),
        "vllm_venv": str(tmp_path / "venv"),
        "vllm_lock_path": str(tmp_path / "locks"),
        "vllm_wheel_path": str(tmp_path / "wheels"),
        "vllm_index_url": f"{index}/public/",
        "__vllm_build": False,
        "answer": str(tmp_path / "answer.json"),
    }
    # Where this machine has its packages from is another matter.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PIP_", "UV_"))
    }
    environment.update(
        ANSIBLE_CONFIG=str(CHECKOUT / "ansible.cfg"),
        ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / ".build" / "collections"),
        ANSIBLE_LOCALHOST_WARNING="false",
        UV_CACHE_DIR=str(tmp_path / "uv"),
        PIP_CONFIG_FILE=os.devnull,
        XDG_CONFIG_HOME=str(tmp_path),
        NO_PROXY="127.0.0.1",
    )
    (tmp_path / "play.yml").write_text(PLAY)

    def run(*more: str, roles: tuple[str, ...] = ("neuron_venv", "transformers_neuronx", "vllm")) -> dict[str, Any]:
        (tmp_path / "options.json").write_text(json.dumps({**options, "roles_to_lock": list(roles)}))
        (tmp_path / "answer.json").unlink(missing_ok=True)
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local"]
        command += ["-e", f"@{tmp_path}/options.json", *more, str(tmp_path / "play.yml")]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads((tmp_path / "answer.json").read_text())
        return {**found, "changed": "changed=0" not in done.stdout}

    return run


def keep_wheel(folder: Path) -> None:
    """Put a wheel of vLLM where the controller keeps it, as if it had been built."""
    version = "0.9.2+neuron218"
    wheel = make_wheel(folder, "vllm", version)
    facts = {"wheel": wheel.name, "sha256": wheel_store.sha256(wheel), "version": version, "requirements": ["fastapi"]}
    wheel_store.write(folder, wheel, {**facts, "commit": STACK["vllm"]["commit"]})


def make_environment(path: Path, packages: dict[str, str], spelled: dict[str, str]) -> None:
    """Make an environment that says of itself what the roles leave there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    (path / "neuronops").mkdir()
    for layer, versions in {"neuron_venv": {**packages, **spelled}}.items():
        record = {"role": layer, "inputs": "0" * 64, "packages": versions}
        (path / "neuronops" / f"{layer}.json").write_text(json.dumps(record))


@pytest.mark.thorough
def test_locks_are_the_same_before_and_after_there_is_an_environment(
    lock: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    predicted = lock("--check")
    assert not (tmp_path / "locks").exists()
    assert [layer["inputs"] for layer in predicted["layers"]] == ["", "", ""]

    first = lock()
    venv, neuron, vllm = first["layers"]
    assert [layer["name"] for layer in first["layers"]] == ["neuron_venv", "transformers_neuronx", "vllm"]
    assert {layer["path"] for layer in first["layers"]} == {str(tmp_path / "venv")}
    assert venv["packages"] == {name: PUBLIC[name] for name in ("demo", "pip", "setuptools", "wheel")}
    assert neuron["packages"] == STACK["python_packages"]
    assert all(len(layer[name]) == 64 for layer in (venv, neuron) for name in ("inputs", "lock_sha256"))
    # Nothing was built, and where the wheel will be is known.
    assert (vllm["inputs"], vllm["lock_sha256"], vllm["packages"]) == ("", "", {})
    assert not (tmp_path / "venv").exists()

    keep_wheel(Path(first["directory"]))
    second = lock()
    assert second["layers"][:2] == first["layers"][:2]
    vllm = second["layers"][2]
    assert vllm["packages"] == {
        "fastapi": "0.115.0",
        "torch": PUBLIC["torch"],
        "torchvision": PUBLIC["torchvision"],
        "vllm": "0.9.2+neuron218",
    }
    locks = sorted(path.name for path in (tmp_path / "locks").iterdir())
    assert len(locks) == 3

    make_environment(tmp_path / "venv", venv["packages"], {"demo": "2024.07.04"})
    third = lock()
    assert third == {**second, "changed": False}
    # A role alone finds the packages below it in the environment, however their versions are spelled there.
    alone = lock(roles=("transformers_neuronx",))
    assert alone["layers"][1] == neuron
    assert sorted(path.name for path in (tmp_path / "locks").iterdir()) == locks


@pytest.mark.parametrize("stack", PLUGINS)
def test_the_packages_of_a_plugins_stack_are_locked_by_their_own_role(
    lock: Callable[..., dict[str, Any]], tmp_path: Path, stack: str
) -> None:
    found = lock("-e", f"neuron_stack={stack}", roles=("nxd_inference",))
    layer = found["layers"][1]
    assert (layer["name"], layer["path"]) == ("nxd_inference", str(tmp_path / "venv"))
    assert layer["packages"] == PLUGINS[stack]
    (file,) = (tmp_path / "locks").iterdir()
    assert file.name.startswith(f"nxd_inference-{stack}-")
