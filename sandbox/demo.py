# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: the main job on one machine, with no AWS account, from launch to served text.

    python -m sandbox.demo [--keep]

NEURON_STACK chooses another entry of data/stacks.yml. Those of the backend nxd_inference need the plugin vllm-neuron,
which no package index has: NEURONOPS_PLUGIN_REPOSITORY names a clone of github.com/vllm-project/vllm-neuron to serve it
from, and without that the sandbox's stand-in is served, where it stands in for that release.
--keep leaves it running, and says how to use and remove it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from plugins.plugin_utils import stacks
from sandbox import ec2, environment, hosts, image, lifecycle
from sandbox.fleet import CHECKOUT, Fleet, plain
from sandbox.progress import Progress
from sandbox.repositories import plugin_remote
from sandbox.settings import SandboxError, Settings

# What a stack computes with, the first that it has.
CARRIERS = ("neuronx-distributed-inference", "transformers-neuronx", "neuronx-distributed")
INSTANCE_TYPES = ("inf2.xlarge", "trn1.2xlarge")
ACTIVE = "/opt/aws_neuron_venv_pytorch"
PORT = 8000
# Long enough that one wrong token would show, short enough for the shortest context of any stack.
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "the people of this country", "max_tokens": 16},
    {"prompt": "I would like to know how", "max_tokens": 16},
]
# Other people's, sampled at random, while each of ours is answered.
SAMPLED: dict[str, Any] = {"prompt": "once upon a time", "max_tokens": 24, "temperature": 1.0}
SAMPLING_CLIENTS = 3
PYTHON_OF = {"debian11": "3.9", "debian12": "3.11", "debian13": "3.13"}
WHAT_IS_REAL = """\
Real:      apt with signatures, DKMS and its compiler, pip and uv, git, systemd, sshd, torch, transformers, vLLM's
           sources and its API server, Ansible with the amazon.aws modules and inventory, the openai client.
Stands in: moto for EC2 (each instance becomes a systemd container of Debian in the place of Ubuntu); this machine
           for the servers of AWS's apt and pip repositories and of GitHub; a small kernel module, neuron-ls and Python
           packages for AWS's ({computes} computes on the CPU); a folder for the PCI devices; a tiny random
           model. There is no Neuron hardware and no AWS account, so the speed says nothing about a real host."""


class Demo:
    def __init__(self, settings: Settings, stack: str | None) -> None:
        self.settings = settings
        self.progress = Progress()
        try:
            self.stack = stacks.resolve(stack)
        except stacks.StackError as error:
            raise SandboxError(f"NEURON_STACK: {error}") from None
        # What vLLM computes with, and the plugin that stands between them.
        packages = self.stack["python_packages"]
        self.carrier = next(name for name in CARRIERS if name in packages)
        self.plugin: dict[str, Any] | None = self.stack.get("plugin")
        plugin = self.plugin
        if plugin and "source" in plugin and not plugin_remote.has(plugin["version"]):
            raise SandboxError(
                f"The stack {self.stack['name']} needs the plugin {plugin['name']} {plugin['version']}, which no "
                f"package index has; the sandbox stands in for {', '.join(plugin_remote.STOOD_IN_FOR)} alone. Set "
                f"{plugin_remote.VARIABLE} to a clone of {plugin['source']} with the commit {plugin['commit']}."
            )
        self.log = settings.cache / f"{settings.name}-demo.log"
        self.fleet = Fleet(settings, self.log, self.progress.step)

    @property
    def system(self) -> str:
        """The system for the hosts: the usual one where the stack has packages for its Python, else an older one."""
        systems = [image.DEFAULT_SYSTEM, "debian11", "debian13"]
        return next((system for system in systems if PYTHON_OF[system] in self.stack["pythons"]), systems[0])

    @property
    def vars_file(self) -> Path:
        return self.settings.state / "fleet.yml"

    def run(self) -> None:
        say = self.progress.say
        say(WHAT_IS_REAL.format(computes=self.carrier))
        if self.plugin:
            say(self.which_plugin())
        say(f"\nStack {self.stack['name']} (Neuron SDK {self.stack['sdk']}); Ansible's whole output: {self.log}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        with self.progress.phase("Start the sandbox"):
            lifecycle.up(self.settings, systems=[self.system])
        self.write_variables()
        with self.progress.phase(f"Launch {' and '.join(INSTANCE_TYPES)}"):
            self.fleet.playbook("launch.yml", self.vars_file)
        with self.progress.phase("Bring the hosts to serving vLLM (site.yml)"):
            self.fleet.playbook("site.yml", self.settings.variables_file)
        with self.progress.phase("The same again (site.yml, nothing to do)"):
            recap = self.fleet.playbook("site.yml", self.settings.variables_file)
            changed = {host: counts["changed"] for host, counts in recap.items()}
            if any(changed.values()) or len(changed) < len(INSTANCE_TYPES) + 1:
                raise SandboxError(f"The second run was to change nothing on any host; changed: {changed}.")
        with self.progress.phase("Ask each server (openai client, SSH tunnel)"):
            self.ask_all()

    def which_plugin(self) -> str:
        """Which plugin is served, the real one or the stand-in."""
        plugin = self.stack["plugin"]
        name = f"the plugin {plugin['name']} {plugin['version']}"
        if "source" not in plugin:
            return f"Real too:  {name}, the wheel of the public index."
        if plugin_remote.clone():
            return f"Real too:  {name}, commit {plugin['commit']}."
        return (
            f"Stands in: {name} is the sandbox's own too, written for these tests (sandbox/emulation/vllm-neuron).\n"
            f"           Set {plugin_remote.VARIABLE} to a clone of {plugin['source']} for the real one."
        )

    def write_variables(self) -> None:
        state = ec2.read(self.settings) or {}
        releases = {system: release for release, system in ec2.UBUNTU.items()}
        variables = {
            "launch_subnet_id": state["subnet_id"],
            "launch_key_name": state["key_name"],
            "launch_image_name": re.sub(r"\d{8}$", "*", ec2.image_name(releases[self.system])),
            "launch_groups": [{"instance_type": name, "count": 1} for name in INSTANCE_TYPES],
            "neuron_stack": self.stack["name"],
        }
        self.vars_file.write_text(yaml.safe_dump(variables))
        # A fleet keeps its locks and wheels beside its inventory; the sandbox keeps them with what it removes.
        kept = self.settings.state / "controller"
        of_the_fleet = {
            "neuron_stack": self.stack["name"],
            "neuron_state": str(kept),
            "vllm_server_max_model_len": self.stack["server"]["max_model_len"] or lifecycle.CONTEXT,
            "vllm_server_max_num_seqs": 4,
        }
        known = yaml.safe_load(self.settings.variables_file.read_text())
        self.settings.variables_file.write_text(yaml.safe_dump({**known, **of_the_fleet}))

    def ask_all(self) -> None:
        found = self.fleet.inventory()
        addresses = [plain(variables["ansible_host"]) for variables in found.values()]
        types = sorted(plain(variables["ec2_instance_type"]) for variables in found.values())
        if types != sorted(INSTANCE_TYPES):
            raise SandboxError(f"The inventory finds {types}, not {sorted(INSTANCE_TYPES)}.")
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(self.ask, addresses))
            expected = list(pool.map(self.decode_greedily, addresses))
        wrong = []
        for (name, variables), (version, texts), right in zip(found.items(), answers, expected, strict=True):
            address = plain(variables["ansible_host"])
            self.progress.say(f"\n  {name}  {plain(variables['ec2_instance_type'])}  {address}")
            for line in [f"vLLM {version}", *self.versions(address)]:
                self.progress.say(f"    {line}")
            for request, text, greedy in zip(REQUESTS, texts, right, strict=True):
                verdict = (
                    "equal to plain greedy decoding"
                    if text == greedy
                    else f"NOT what greedy decoding gives: {greedy!r}"
                )
                self.progress.say(f"    {request['prompt']!r} -> {text!r}\n      {verdict}")
                if text != greedy:
                    wrong.append(name)
            built = f"{self.stack['vllm']['version']}+{self.stack['vllm']['suffix']}"
            if version != built:
                raise SandboxError(f"{name} serves with vLLM {version}, not {built}.")
        if wrong:
            raise SandboxError(f"{', '.join(sorted(set(wrong)))} did not answer what plain greedy decoding gives.")

    def ask(self, address: str) -> tuple[str, list[str]]:
        """The version and the answers of the server on a host, while it answers others that are sampled."""
        import openai

        with self.fleet.tunnel(address, PORT) as port, openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=120
        ) as client:
            model = client.models.list().data[0].id
            asked, sampling = threading.Event(), threading.Event()

            def sample() -> None:
                while not asked.is_set():
                    client.completions.create(model=model, **SAMPLED)
                    sampling.set()

            def greedy(request: dict[str, Any]) -> str:
                return str(client.completions.create(model=model, temperature=0, **request).choices[0].text)

            with ThreadPoolExecutor(SAMPLING_CLIENTS) as others:
                sampled = [others.submit(sample) for _client in range(SAMPLING_CLIENTS)]
                try:
                    # From the first answer on there is always one of them at work.
                    if not sampling.wait(timeout=120):
                        raise SandboxError(f"The server on {address} gave no sampled answer within 120 seconds.")
                    texts = [greedy(request) for request in REQUESTS]
                finally:
                    asked.set()
                for each in sampled:
                    each.result()
            code = "import importlib.metadata as m; print(m.version('vllm'))"
            version = self.fleet.remote(address, ["sudo", f"{ACTIVE}/bin/python", "-c", code]).strip()
        return version, texts

    def decode_greedily(self, address: str) -> list[str]:
        """What plain greedy decoding by transformers gives, without vLLM, in the environment of a host."""
        program = (CHECKOUT / "sandbox" / "greedy.py").read_text()
        command = ["sudo", f"{ACTIVE}/bin/python", "-c", program, image.MODEL]
        texts: list[str] = json.loads(self.fleet.remote(address, command, json.dumps(REQUESTS)))
        return texts

    def versions(self, address: str) -> list[str]:
        """What runs on a host, as the host says."""
        plugin = [self.plugin["name"]] if self.plugin else []
        packages = ("torch", "torch-neuronx", "neuronx-cc", self.carrier, *plugin, "transformers")
        code = (
            "import importlib.metadata as m, sys; print('Python', sys.version.split()[0]); "
            f"[print(name, m.version(name)) for name in {packages}]"
        )
        driver = self.fleet.remote(address, ["cat", "/sys/module/neuron/version"]).strip()
        python = self.fleet.remote(address, ["sudo", f"{ACTIVE}/bin/python", "-c", code]).splitlines()
        return [f"driver {driver} (loaded)", ", ".join(python)]

    def how_to_use(self) -> str:
        prefix = "".join(
            f"export {name}={shlex.quote(os.environ[name])}\n  "
            for name in ("NEURONOPS_CACHE", "NEURONOPS_SANDBOX_NAME", "NEURONOPS_SANDBOX_SUBNET")
            if name in os.environ
        )
        addresses = [entry["address"] for entry in hosts.listing(self.settings) if "neuronops.instance" in entry]
        tunnel = shlex.join(self.fleet.ssh(addresses[0], "-N", "-L", f"127.0.0.1:{PORT}:127.0.0.1:{PORT}"))
        return f"""
The sandbox is left running. In this folder:
  {prefix}export PATH={Path(sys.executable).parent}:$PATH
  . <(python -m sandbox env)                  # AWS tools and Ansible now mean the sandbox
  ansible-inventory --graph                   # what the inventory finds
  ansible-playbook playbooks/site.yml -e @{self.settings.variables_file}
  {tunnel} &
  curl http://127.0.0.1:{PORT}/v1/models
Remove it:
  python -m sandbox down"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    arguments = parser.parse_args()
    environment.enter()
    # Whoever ends us, the sandbox is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    status = 1
    try:
        settings = Settings.from_environment()
        demo = Demo(settings, os.environ.get("NEURON_STACK") or None)
    except SandboxError as error:
        print(f"demo: {error}", file=sys.stderr)
        return status
    only_repositories = lifecycle.runs(settings) and not ec2.read(settings)
    try:
        demo.run()
        status = 0
    except SandboxError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        status = 130
    finally:
        # A second Ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if arguments.keep and status == 0:
            print(demo.how_to_use())
        else:
            with demo.progress.phase("Remove everything"):
                # What somebody else started under this name, for other tests, is theirs.
                (lifecycle.ec2_down if only_repositories else lifecycle.down)(settings)
    print(f"\n{demo.progress.table()}")
    print("\nBoth hosts served what plain greedy decoding gives." if status == 0 else "\nThe demo failed.")
    return status


if __name__ == "__main__":
    sys.exit(main())
