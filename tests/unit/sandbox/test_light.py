# SPDX-License-Identifier: GPL-3.0-or-later
"""The light stack is a stack like those of the collection, and its vLLM answers as one."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from plugins.plugin_utils import build_tools, stacks
from sandbox.repositories import light
from sandbox.repositories.wheels import Wheel

ENTRIES = light.stacks()


@pytest.mark.parametrize("name", ENTRIES)
def test_each_entry_is_a_stack_that_the_collection_takes(name: str) -> None:
    stack = stacks.resolve(name, entries=ENTRIES)
    compiler = stack["python_packages"]["neuronx-cc"].split(".")
    assert stack["vllm"]["suffix"] == "neuron" + "".join(compiler[:2])
    assert stack["vllm"]["ref"] == "v" + stack["vllm"]["version"]
    known = build_tools.lock(stack["vllm"]["build_requirements"], "3.11")
    assert known, "its build tools are those of a stack of the collection"


def test_an_upgrade_changes_every_package_and_no_other_stack_has_any_of_them() -> None:
    one, two = (ENTRIES[name]["python_packages"] for name in ("light-1", "light-2"))
    assert set(one) == set(two)
    assert all(one[name] != two[name] for name in one)
    for other in stacks.load()["stacks"]:
        real = stacks.resolve(other)["python_packages"]
        assert not {*one.items(), *two.items()} & set(real.items())


def test_there_is_a_wheel_for_each_package_and_it_names_what_it_needs() -> None:
    found = {(wheel.name, wheel.version): wheel for wheel in light.wheels()}
    for entry in ENTRIES.values():
        assert set(entry["python_packages"].items()) <= set(found)
    assert found["torch-neuronx", "101.2.0.4.1"].requires == ["torch==101.2.0", "libneuronxla==101.2.40.0"]
    assert all(isinstance(wheel, Wheel) and len(wheel.content()) > light.FILLING for wheel in found.values())


def test_the_variables_take_every_package_from_the_light_index() -> None:
    variables = yaml.safe_load(light.FILE.read_text())
    index = "https://pip.repos.neuron.amazonaws.com/light/"
    assert variables["neuron_venv_neuron_index_url"] == variables["vllm_torch_index_url"] == index
    assert variables["vllm_source"] == f"https://github.com/{light.REPOSITORY}.git"


def test_commits_stay_the_same_and_each_stack_has_its_own(tmp_path: Path) -> None:
    commits = light.write_git(tmp_path / "one.git")
    assert commits == light.write_git(tmp_path / "two.git")
    assert list(commits) == list(ENTRIES) and len(set(commits.values())) == len(ENTRIES)


@pytest.fixture
def environment(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A folder that holds what an environment of a light stack has, and a model."""
    stack = ENTRIES[request.param]
    site = tmp_path / "site"
    for wheel in light.wheels():
        if stack["python_packages"][wheel.name] == wheel.version:
            for path, content in wheel.files.items():
                (site / path).parent.mkdir(parents=True, exist_ok=True)
                (site / path).write_bytes(content)
    for path, content in light.trees()[request.param][1].items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return site, tmp_path / "model"


def serve(site: Path, model: Path, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "m",
         "--host", "127.0.0.1", "--port", str(port), "--tensor-parallel-size", "2", "--device", "neuron"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "VLLM_API_KEY": "secret"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


@pytest.fixture
def server(environment: tuple[Path, Path], port: int) -> Iterator[str]:
    process = serve(*environment, port)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while status(f"{url}/health") != 200 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.communicate()


def ask(url: str, body: dict[str, object] | None = None, key: str = "") -> tuple[int, str]:
    """Status and text of an answer; (0, "") where there is none."""
    address, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        content = json.dumps(body) if body else None
        connection.request("POST" if body else "GET", f"/{path}", content, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def status(url: str) -> int:
    return ask(url)[0]


@pytest.mark.parametrize("environment", ["light-1"], indirect=True)
def test_the_server_answers_as_vllm_does_and_says_what_it_is(server: str) -> None:
    prompt = {"model": "m", "prompt": "Hello", "max_tokens": 1}
    assert status(f"{server}/health") == 200
    assert status(f"{server}/v1/models") == ask(f"{server}/v1/completions", prompt)[0] == 401
    assert json.loads(ask(f"{server}/v1/models", key="secret")[1])["data"][0]["id"] == "m"
    code, answer = ask(f"{server}/v1/completions", prompt, "secret")
    assert code == 200 and "vLLM 0.9.101 with" in json.loads(answer)["choices"][0]["text"]
    assert ask(f"{server}/v1/completions", {**prompt, "model": "other"}, "secret")[0] == 404


@pytest.mark.parametrize("environment", [light.BROKEN], indirect=True)
def test_the_broken_one_says_its_help_and_cannot_start(environment: tuple[Path, Path], port: int) -> None:
    process = serve(*environment, port)
    said = process.communicate(timeout=20)[0]
    assert process.returncode == 1 and "broken on purpose" in said
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--help"]
    where = {"PYTHONPATH": str(environment[0])}
    helped = subprocess.run(command, env=where, capture_output=True, text=True, check=True)
    assert "--tensor-parallel-size" in helped.stdout


def test_its_setup_knows_one_device_and_the_compiler(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    shutil.copytree(light.SOURCES, folder)
    (tmp_path / "site" / "neuronx_cc-101.1.3.0.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: neuronx-cc\nVersion: 101.1.3.0\n"
    (tmp_path / "site" / "neuronx_cc-101.1.3.0.dist-info" / "METADATA").write_text(metadata)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tmp_path / "site"),
        "SETUPTOOLS_SCM_PRETEND_VERSION": "0.9.101",
    }
    command = [sys.executable, "setup.py", "--quiet", "--version"]

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=folder, env={**environment, **more}, capture_output=True, text=True, check=False
        )

    assert run(VLLM_TARGET_DEVICE="neuron").stdout.strip().splitlines()[-1] == "0.9.101+neuron1011"
    refused = run()
    assert refused.returncode and "knows no other device" in refused.stderr
