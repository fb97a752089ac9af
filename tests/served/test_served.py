# SPDX-License-Identifier: GPL-3.0-or-later
"""Each stack's vLLM, built from its real sources by the roles, serves what plain greedy decoding answers.

On this machine, without any container: the roles install into an environment here from the sandbox's repositories,
vLLM's own API server runs on the CPU emulation, and the real openai client asks it several things at once, also while
it draws the text of somebody else at random.

Stacks with the plugin vllm-neuron get the sandbox's stand-in for it, or with NEURONOPS_PLUGIN_REPOSITORY the real one.
Those with optimum-neuron get the real one, of the public index.
"""

from __future__ import annotations

import concurrent.futures
import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from plugins.plugin_utils import stacks
from sandbox import model
from sandbox.repositories import plugin_remote
from sandbox.repositories.build import build

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ["NEURONOPS_CACHE"])
# Each takes about 2 minutes of processor time (`time pytest tests/served -k NAME`), most of it for importing torch.
MAIN = [name for name, entry in stacks.load()["stacks"].items() if entry["evidence"] == "served"]
# Releases between, of which the sandbox has the sources.
BETWEEN = ["vllm-0.8.5", "vllm-0.6.6"]
# Those with the plugin need a torch of their own each, 7 GB: pytest tests/served --stack NAME
NAMED = [name for name, entry in stacks.load()["stacks"].items() if "plugin" in entry and name not in MAIN]
# vLLM 0.4.2 serves 32 tokens in all, the prompt among them.
PROMPTS = ["the world is", "my name is", "people say that water"]
# Of whoever is drawn at random. With a prompt of one token optimum-neuron writes over the others' part of its cache.
DRAWN = "the world"
TOKENS = 12
CONTEXT = 128  # of the server, in tokens, where the stack has no limit
SECONDS_TO_START = 300
SEQUENCES = 4  # that the server answers at a time
RANKS = 2
PLUGIN = f"repositories/www/github.com/{plugin_remote.REPOSITORY}.git"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture(scope="session")
def work() -> Path:
    folder: Path = CHECKOUT / ".build" / "served"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def facts() -> dict[str, Any]:
    """Make the sandbox's repositories, where they are not there, and return what is to be known of them."""
    return build(CACHE / "repositories")


@pytest.fixture(scope="session")
def neuron_index(facts: dict[str, Any]) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(CACHE / "repositories/www/pip.repos.neuron.amazonaws.com"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def tiny_model(work: Path) -> Path:
    folder = work / model.NAME
    model.write(folder)
    return folder


def interpreter(pythons: list[str]) -> str | None:
    """Return an interpreter of this machine of one of these versions, the newest first; uv does not look into pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for version in sorted(pythons, key=stacks.release, reverse=True):
        command = ["uv", "python", "find", "--no-python-downloads", "--system", version]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.strip()
        installed = sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
        if installed:
            return str(installed[-1])
    return None


def environment(work: Path) -> dict[str, str]:
    return {
        **os.environ,
        # Packages come from where the sandbox's hosts have them, which know of no pip.conf of this machine.
        "PIP_CONFIG_FILE": os.environ.get("PIP_CONFIG_FILE", os.devnull),
        "UV_CACHE_DIR": str(CACHE / "uv"),
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".build" / "collections"),
        "HF_HUB_OFFLINE": "1",
        "NEURONOPS_EMULATED_CORES": "2",
        "NEURON_COMPILE_CACHE_URL": str(work / "compile-cache"),
        "BASE_COMPILE_WORK_DIR": str(work / "compiler"),
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
    }


def served_commits(stack: dict[str, Any], facts: dict[str, Any]) -> dict[str, str]:
    """The commits that the sandbox serves of what the stack is built from, vLLM and a plugin that is no wheel."""
    found = {"vllm": facts["commits"][stack["vllm"]["version"]]}
    if "source" in stack.get("plugin", {}):
        if stack["plugin"]["ref"] not in facts["plugin_commits"]:
            pytest.fail(
                f"nothing stands in for {stack['plugin']['name']} {stack['plugin']['version']}: set "
                f"{plugin_remote.VARIABLE} to a clone that has its commit"
            )
        found["plugin"] = facts["plugin_commits"][stack["plugin"]["ref"]]
    return found


def install(stack: dict[str, Any], python: str, work: Path, neuron_index: str, commits: dict[str, str]) -> Path:
    """Have the stack's vLLM in a fresh environment, by the roles, and return the environment."""
    place = work / stack["name"]
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    venv: Path = place / "venv"
    subprocess.run(
        ["uv", "venv", "--quiet", "--seed", "--python", python, str(venv)], check=True, env=environment(work)
    )
    # The file system of the source is the same on the builder: a clone over git's own protocol, no server.
    variables = {
        "venv": str(venv),
        "work": str(work),
        "index_url": neuron_index,
        "neuron_stack": stack["name"],
        "packages_role": stack["packages_role"],
        "neuron_stack_overrides": {of: {"commit": commit} for of, commit in commits.items()},
        "vllm_source": str(CACHE / "repositories/www/github.com/vllm-project/vllm.git"),
        **({"vllm_plugin_source": str(CACHE / PLUGIN)} if "plugin" in commits else {}),
        "vllm_wheel_path": str(place / "wheels"),
        "vllm_lock_path": str(work / "locks"),
        f"{stack['packages_role']}_lock_path": str(work / "locks"),
    }
    (place / "variables.json").write_text(json.dumps(variables))
    command = ["ansible-playbook", "-i", f"{stack['name']},", "-c", "local", "-e", f"@{place / 'variables.json'}"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", str(Path(__file__).with_name("play.yml"))]
    log = place / "install.log"
    with log.open("wb") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment(work), cwd=CHECKOUT)
    assert status.returncode == 0, log.read_text()[-6000:]
    return venv


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# vLLM 0.3.3 finds its own address by resolving a public name, and cannot be told it. Where no DNS answers, as on the
# machines that test this, it gets a name that does.
RESOLVES = """
import socket

class Socket(socket.socket):
    def connect(self, address):
        return super().connect(("127.0.0.1", address[1]) if address[0] == "dns.google" else address)

socket.socket = Socket
"""


def with_device(place: Path) -> list[str]:
    """The words before a command that is to see a Neuron device, on this machine that has none."""
    (place / "dev").mkdir(exist_ok=True)
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    return [*alone, str(Path(__file__).with_name("with_device")), str(place / "dev")]


class ServedModel:
    """vLLM's API server as a process of its own, ended with the test."""

    def __init__(self, stack: dict[str, Any], venv: Path, folder: Path, work: Path) -> None:
        self.port, self.log = free_port(), work / stack["name"] / "server.log"
        length = stack["server"]["max_model_len"] or CONTEXT
        command = [str(venv / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
        command += [
            "--model",
            str(folder),
            "--served-model-name",
            "tiny",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        command += ["--tensor-parallel-size", str(RANKS)]
        command += ["--max-num-seqs", str(SEQUENCES), "--max-model-len", str(length)]
        command += ["--block-size", str(length)] if stack["server"].get("block_size_is_context") else []
        variables = {**environment(work), **stack["server"]["environment"]}
        if stack["backend"] == "nxd_inference":
            command = [*with_device(work / stack["name"]), *command, "--num-gpu-blocks-override", str(SEQUENCES)]
            command += ["--additional-config", json.dumps(stack["server"]["additional_config"])]
            variables["NEURON_COMPILED_ARTIFACTS"] = str(work / stack["name"] / "artifacts")
        if stack["backend"] == "optimum_neuron":
            command = [*with_device(work / stack["name"]), *command]
        if stack["name"] == "vllm-0.3.3":
            (work / "resolves").mkdir(exist_ok=True)
            (work / "resolves" / "sitecustomize.py").write_text(RESOLVES)
            variables["PYTHONPATH"] = str(work / "resolves")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *stack["server"]["arguments"]],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=work / stack["name"],
                start_new_session=True,
            )

    def __enter__(self) -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", timeout=60)
        end = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                client.models.list()
                return client
            except openai.APIConnectionError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    pytest.fail(f"The server did not start:\n{self.log.read_text()[-4000:]}")
                time.sleep(1)

    def __exit__(self, *_error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def exported(stack: dict[str, Any], venv: Path, folder: Path, work: Path) -> Path:
    """Return the model as the stack serves it: exported with the server's own numbers where it must be, or as it is."""
    if stack["backend"] != "optimum_neuron":
        return folder
    made: Path = work / stack["name"] / "exported"
    length = stack["server"]["max_model_len"] or CONTEXT
    command = [
        *with_device(work / stack["name"]),
        str(venv / "bin" / "python"),
        str(CHECKOUT / "sandbox" / "export.py"),
    ]
    command += [str(folder), str(made), *(str(number) for number in (RANKS, length, SEQUENCES))]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(work), cwd=made.parent
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return made


def greedy(venv: Path, folder: Path, prompts: list[str], tokens: int) -> list[str]:
    """Return what transformers alone answers."""
    requests = json.dumps([{"prompt": prompt, "max_tokens": tokens} for prompt in prompts])
    command = [str(venv / "bin" / "python"), str(CHECKOUT / "sandbox" / "greedy.py"), str(folder)]
    answer = subprocess.run(command, input=requests, capture_output=True, text=True, check=True)
    texts: list[str] = json.loads(answer.stdout)
    return texts


@pytest.mark.parametrize(
    "name",
    [
        *MAIN,
        *(pytest.param(name, marks=pytest.mark.between) for name in BETWEEN),
        *(pytest.param(name, marks=pytest.mark.named) for name in NAMED),
    ],
)
def test_the_server_answers_as_plain_greedy_decoding(
    name: str, work: Path, neuron_index: str, facts: dict[str, Any], tiny_model: Path
) -> None:
    stack = stacks.resolve(name)
    python = interpreter(stack["pythons"])
    if python is None:
        pytest.skip(f"this machine has no Python {', '.join(stack['pythons'])}")
    commits = served_commits(stack, facts)
    venv = install(stack, python, work, neuron_index, commits)
    manifest = json.loads((venv / "neuronops" / "vllm.json").read_text())
    assert manifest["version"] == f"{stack['vllm']['version']}+{stack['vllm']['suffix']}"
    assert manifest["commit"] == commits["vllm"]
    assert manifest.get("plugin_commit") == commits.get("plugin")

    def ask(client: openai.OpenAI, prompt: str) -> str:
        answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=TOKENS, temperature=0)
        return answer.choices[0].text

    expected = greedy(venv, tiny_model, PROMPTS, TOKENS)
    assert len(set(expected)) == len(PROMPTS), "an oracle that always says the same proves nothing"
    length = stack["server"]["max_model_len"] or CONTEXT
    served = exported(stack, venv, tiny_model, work)
    with ServedModel(stack, venv, served, work) as client, concurrent.futures.ThreadPoolExecutor() as pool:
        assert list(pool.map(functools.partial(ask, client), PROMPTS)) == expected
        # Whoever comes while another is served is sampled as they asked, and so is the other.
        drawn = client.completions.create(
            model="tiny", prompt=DRAWN, max_tokens=length - TOKENS, temperature=1, stream=True
        )
        pieces = [next(drawn).choices[0].text]
        assert list(pool.map(functools.partial(ask, client), PROMPTS)) == expected
        words = "".join([*pieces, *(piece.choices[0].text for piece in drawn)]).split()
        best = greedy(venv, tiny_model, [DRAWN], length - TOKENS)[0].split()
        assert words != best[: len(words)]
    shutil.rmtree(venv)
