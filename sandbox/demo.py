# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: the main job on one machine, with no AWS account, from launch to served text.

    python -m sandbox.demo [--keep]

NEURON_STACK chooses another entry of data/stacks.yml. --keep leaves it running, and says how to use and remove it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from plugins.plugin_utils import stacks
from sandbox import ec2, hosts, image, lifecycle
from sandbox.settings import SandboxError, Settings

CHECKOUT = Path(__file__).resolve().parents[1]
INSTANCE_TYPES = ("inf2.xlarge", "trn1.2xlarge")
ACTIVE = "/opt/aws_neuron_venv_pytorch"
PORT = 8000
# A step is shown when it has taken this long, and again after each such time.
SHOWN_AFTER_SECONDS = 3
HEARTBEAT_SECONDS = 15
# Long enough that one wrong token would show, short enough for the shortest context of any stack.
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "the people of this country", "max_tokens": 16},
    {"prompt": "I would like to know how", "max_tokens": 16},
]
PYTHON_OF = {"debian11": "3.9", "debian12": "3.11", "debian13": "3.13"}
WHAT_IS_REAL = """\
Real:      apt with signatures, DKMS and its compiler, pip and uv, git, systemd, sshd, torch, transformers, vLLM's
           sources and its API server, Ansible with the amazon.aws modules and inventory, the openai client.
Stands in: moto for EC2 (each instance becomes a systemd container of Debian in the place of Ubuntu); this machine
           for the servers of AWS's apt and pip repositories and of GitHub; a small kernel module, neuron-ls and Python
           packages for AWS's (transformers-neuronx computes on the CPU); a folder for the PCI devices; a tiny random
           model. There is no Neuron hardware and no AWS account, so the speed says nothing about a real host."""


class Progress:
    """Prints the phases, the steps that take a while, and how long each phase took."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.phases: list[tuple[str, float]] = []
        self._doing = ""
        self._show_at = self.start
        self._ended = threading.Event()
        threading.Thread(target=self._heartbeat, daemon=True).start()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def step(self, text: str) -> None:
        self._doing, self._show_at = text, time.monotonic() + SHOWN_AFTER_SECONDS

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        self.say(f"\n== {name}")
        self.step(name)
        yield
        self._doing = ""
        self.phases.append((name, time.monotonic() - begin))

    def table(self) -> str:
        rows = [*self.phases, ("total", time.monotonic() - self.start)]
        return "\n".join(f"  {name:44} {seconds:7.1f} s" for name, seconds in rows)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        return f"{minutes}:{seconds:02d}"

    def _heartbeat(self) -> None:
        while not self._ended.wait(1):
            if self._doing and time.monotonic() >= self._show_at:
                self._show_at = time.monotonic() + HEARTBEAT_SECONDS
                self.say(f"  {self._clock()}  {self._doing} ...")


class Demo:
    def __init__(self, settings: Settings, stack: str | None) -> None:
        self.settings = settings
        self.progress = Progress()
        try:
            self.stack = stacks.resolve(stack)
        except stacks.StackError as error:
            raise SandboxError(f"NEURON_STACK: {error}") from None
        self.log = settings.cache / f"{settings.name}-demo.log"

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
        say(WHAT_IS_REAL)
        say(f"\nStack {self.stack['name']} (Neuron SDK {self.stack['sdk']}); Ansible's whole output: {self.log}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        with self.progress.phase("Start the sandbox"):
            lifecycle.up(self.settings, systems=[self.system])
        self.write_variables()
        with self.progress.phase(f"Launch {' and '.join(INSTANCE_TYPES)}"):
            self.playbook("launch.yml", self.vars_file)
        with self.progress.phase("Bring the hosts to serving vLLM (site.yml)"):
            self.playbook("site.yml", self.settings.variables_file)
        with self.progress.phase("The same again (site.yml, nothing to do)"):
            recap = self.playbook("site.yml", self.settings.variables_file)
            changed = {host: counts["changed"] for host, counts in recap.items()}
            if any(changed.values()) or len(changed) < len(INSTANCE_TYPES) + 1:
                raise SandboxError(f"The second run was to change nothing on any host; changed: {changed}.")
        with self.progress.phase("Ask each server (openai client, SSH tunnel)"):
            self.ask_all()

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
            "neuron_venv_lock_path": str(kept / "locks"),
            "vllm_lock_path": str(kept / "locks"),
            "vllm_wheel_path": str(kept / "wheels"),
        }
        with self.settings.variables_file.open("a") as file:
            yaml.safe_dump(of_the_fleet, file)

    def environment(self) -> dict[str, str]:
        # Nothing of the person's own AWS settings, so that no request can go to a real account.
        own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))}
        return {
            **own,
            **lifecycle.environment(self.settings),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            # Of the plugins that we use, not of ours.
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def playbook(self, name: str, variables: Path, *more: str) -> dict[str, dict[str, int]]:
        """Run a playbook over the inventory, showing each task, and return its recap."""
        command = [
            "ansible-playbook",
            "-i",
            "inventories/aws_ec2.yml",
            f"playbooks/{name}",
            "-e",
            f"@{variables}",
            *more,
        ]
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        lines: list[str] = []
        assert process.stdout  # noqa: S101 - it is a pipe
        try:
            with self.log.open("a") as log:
                log.write(f"\n$ {shlex.join(command)}\n")
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    lines.append(line.rstrip())
                    task = re.match(r"TASK \[(?:neuronops\.vllm\.)?(.+?)\] \*", line)
                    if task:
                        self.progress.step(task[1])
            status = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        if status:
            said = "\n".join(lines[-60:])
            raise SandboxError(f"{name} ended with exit status {status}. Its output ends:\n{said}")
        return recap(lines)

    def ssh(self, address: str, *arguments: str) -> list[str]:
        key, known = self.settings.state / "id_ed25519", self.settings.state / "known_hosts"
        options = ["-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
        return ["ssh", "-i", str(key), *options, *arguments, f"ubuntu@{address}"]

    def remote(self, address: str, command: list[str], stdin: str = "") -> str:
        done = subprocess.run(
            [*self.ssh(address), shlex.join(command)], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SandboxError(f"`{command[0]}` on {address} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def inventory(self) -> dict[str, dict[str, Any]]:
        """The hosts as the inventory plugin finds them."""
        done = subprocess.run(
            ["ansible-inventory", "-i", "inventories/aws_ec2.yml", "--list"],
            cwd=CHECKOUT, env=self.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SandboxError(f"ansible-inventory failed: {done.stderr.strip()[-2000:]}")
        listed = json.loads(done.stdout)
        found: dict[str, dict[str, Any]] = listed["_meta"]["hostvars"]
        return {name: found[name] for name in listed.get("neuron", {}).get("hosts", [])}

    def ask_all(self) -> None:
        found = self.inventory()
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
        """The version and the answers of the server on a host, which listens on that host's loopback."""
        import openai

        with self.tunnel(address) as port, openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=120
        ) as client:
            model = client.models.list().data[0].id
            texts = [
                client.completions.create(
                    model=model, prompt=request["prompt"], max_tokens=request["max_tokens"], temperature=0
                ).choices[0].text
                for request in REQUESTS
            ]  # fmt: skip
            code = "import importlib.metadata as m; print(m.version('vllm'))"
            version = self.remote(address, ["sudo", f"{ACTIVE}/bin/python", "-c", code]).strip()
        return version, texts

    @contextlib.contextmanager
    def tunnel(self, address: str) -> Iterator[int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        forward = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{PORT}"]
        process = subprocess.Popen(
            self.ssh(address, *forward), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            for _ in range(100):
                if process.poll() is not None:
                    said = process.stderr.read().decode(errors="replace") if process.stderr else ""
                    raise SandboxError(f"The SSH tunnel to {address} did not open: {said.strip()}")
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait()

    def decode_greedily(self, address: str) -> list[str]:
        """What plain greedy decoding by transformers gives, without vLLM, in the environment of a host."""
        program = (CHECKOUT / "sandbox" / "greedy.py").read_text()
        command = ["sudo", f"{ACTIVE}/bin/python", "-c", program, image.MODEL]
        texts: list[str] = json.loads(self.remote(address, command, json.dumps(REQUESTS)))
        return texts

    def versions(self, address: str) -> list[str]:
        """What runs on a host, as the host says."""
        packages = ("torch", "torch-neuronx", "neuronx-cc", "transformers-neuronx", "transformers")
        code = (
            "import importlib.metadata as m, sys; print('Python', sys.version.split()[0]); "
            f"[print(name, m.version(name)) for name in {packages}]"
        )
        driver = self.remote(address, ["cat", "/sys/module/neuron/version"]).strip()
        python = self.remote(address, ["sudo", f"{ACTIVE}/bin/python", "-c", code]).splitlines()
        return [f"driver {driver} (loaded)", ", ".join(python)]

    def how_to_use(self) -> str:
        prefix = "".join(
            f"export {name}={shlex.quote(os.environ[name])}\n  "
            for name in ("NEURONOPS_CACHE", "NEURONOPS_SANDBOX_NAME", "NEURONOPS_SANDBOX_SUBNET")
            if name in os.environ
        )
        addresses = [entry["address"] for entry in hosts.listing(self.settings) if "neuronops.instance" in entry]
        tunnel = shlex.join(self.ssh(addresses[0], "-N", "-L", f"127.0.0.1:{PORT}:127.0.0.1:{PORT}"))
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


def plain(value: Any) -> str:
    """A value of `ansible-inventory --list`, which marks text from outside."""
    return str(value["__ansible_unsafe"] if isinstance(value, dict) else value)


def recap(lines: list[str]) -> dict[str, dict[str, int]]:
    """Host -> its counts, from the end of a playbook's output."""
    start = max((number for number, line in enumerate(lines) if line.startswith("PLAY RECAP")), default=len(lines))
    rows = (re.match(r"(\S+)\s+:\s+(ok=.*)", line) for line in lines[start:])
    return {row[1]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", row[2])} for row in rows if row}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    arguments = parser.parse_args()
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
