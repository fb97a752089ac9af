# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with systemd and four stand-ins for a release, on which the role runs as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
STUBS = (Path(__file__).parent / "stubs.sh").read_text(encoding="utf-8")
# What a test may have left of the server; the releases stay.
CLEAN = """
systemctl unmask vllm 2> /dev/null; systemctl disable --now vllm 2> /dev/null
pkill -9 -f vllm.entrypoints.openai.api_server
rm -rf /etc/systemd/system/vllm.service* /etc/neuronops /var/lib/neuronops /opt/stub/active
test -e /usr/bin/journalctl.away && mv /usr/bin/journalctl.away /usr/bin/journalctl
sed -i s/neuron219/neuron218/ /opt/stub/*/neuronops/vllm.json
systemctl daemon-reload; systemctl reset-failed; true
"""
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Run the role
      ansible.builtin.include_role:
        name: neuronops.vllm.vllm_server
        tasks_from: "{{ part }}"
"""


@dataclass(frozen=True)
class Run:
    """What a run of the role came to."""

    code: int
    said: str

    @property
    def changed(self) -> bool:
        return "changed=0" not in self.said


@dataclass(frozen=True)
class Host:
    """A container, and the folder of the controller."""

    container: str
    folder: Path

    def sh(self, command: str, check: bool = True) -> str:
        """Run a command of the shell as root, and return what it printed."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.container, "bash", "-s"],
            input=command,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def command(self, release: str, part: str = "main", **options: Any) -> list[str]:
        """Return the command that runs the role."""
        variables = {
            "part": part,
            "neuron_stack": "vllm-0.9.2",  # that of the stubs
            "vllm_server_venv": "/opt/stub/active",
            "vllm_server_release": f"/opt/stub/{release}",
            "vllm_server_model": "m",
            "vllm_server_health_timeout": 20,
            "vllm_server_answer_timeout": 3,
            **{f"vllm_server_{name}": value for name, value in options.items()},
        }
        # In a file, as what is secret should be.
        file = self.folder / f"{uuid.uuid4()}.json"
        file.write_text(json.dumps(variables))
        return ["ansible-playbook", "-i", str(self.folder / "hosts"), str(self.folder / "play.yml"), "-e", f"@{file}"]

    def role(self, release: str, *arguments: str, part: str = "main", **options: Any) -> Run:
        done = subprocess.run(
            [*self.command(release, part, **options), *arguments],
            cwd=CHECKOUT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return Run(done.returncode, " ".join((done.stdout + done.stderr).split()))

    def serves(self, port: int = 8000) -> bool:
        """Whether anybody answers there."""
        return self.sh(f"curl -s -m 5 -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{port}/health", False) == "200"

    def show(self, name: str) -> str:
        return self.sh(f"systemctl show -p {name} --value vllm")

    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.sh("cat /var/lib/neuronops/activations.json"))["activations"]
        return found


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {**kept, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    sandbox = os.environ["NEURONOPS_SANDBOX_NAME"]
    name = f"{sandbox}-server-{os.getpid()}"
    folder = tmp_path_factory.mktemp("controller")
    (folder / "hosts").write_text(f"[neuron]\nhost1 ansible_connection=community.docker.docker ansible_host={name}\n")
    (folder / "play.yml").write_text(PLAY)
    command = ["docker", "run", "--detach", "--name", name, "--network", "none", "--cgroupns=private"]
    command += ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]
    command += ["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec", "--tmpfs", "/sys/module"]  # noqa: S108 - of the container
    subprocess.run([*command, f"{sandbox}:debian12"], check=True, capture_output=True)
    try:
        host = Host(name, folder)
        host.sh("systemctl is-system-running --wait > /dev/null; true")
        host.sh(STUBS)
        yield host
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)


@pytest.fixture
def host(machine: Host) -> Host:
    """The host with nothing of a server on it."""
    machine.sh(CLEAN, check=False)
    return machine
