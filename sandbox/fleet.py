# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts behind the stand-in for EC2, used as a person uses a fleet: ansible-playbook, the inventory, SSH."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sandbox import lifecycle
from sandbox.settings import SandboxError, Settings

CHECKOUT = Path(__file__).resolve().parents[1]


class Fleet:
    def __init__(self, settings: Settings, log: Path, on_task: Callable[[str], None]) -> None:
        self.settings = settings
        self.log = log  # all that Ansible says
        self.on_task = on_task  # called with the name of each task of a playbook

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

    def playbook(self, name: str, variables: Path, *arguments: str) -> dict[str, dict[str, int]]:
        """Run a playbook over the inventory, showing each task, and return its recap."""
        command = ["ansible-playbook", "-i", "inventories/aws_ec2.yml", f"playbooks/{name}", "-e", f"@{variables}"]
        command += arguments
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
                        self.on_task(task[1])
            status = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        if status:
            said = "\n".join(lines[-60:])
            raise SandboxError(f"{name} ended with exit status {status}. Its output ends:\n{said}")
        return recap(lines)

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

    def ssh(self, address: str, *arguments: str) -> list[str]:
        """The command that reaches a host; the known hosts are the sandbox's, not the person's."""
        key, known = self.settings.state / "id_ed25519", self.settings.state / "known_hosts"
        options = ["-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
        return ["ssh", "-i", str(key), *options, *arguments, f"ubuntu@{address}"]

    def remote(self, address: str, command: list[str], stdin: str = "") -> str:
        """What a command says on a host. Raises SandboxError when it fails."""
        done = subprocess.run(
            [*self.ssh(address), shlex.join(command)], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SandboxError(f"`{command[0]}` on {address} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    @contextlib.contextmanager
    def tunnel(self, address: str, remote_port: int) -> Iterator[int]:
        """A local port that leads to a port on the loopback of a host."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        forward = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{remote_port}"]
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
            else:
                raise SandboxError(f"The SSH tunnel to {address} did not open.")
            yield port
        finally:
            process.terminate()
            process.wait()


def plain(value: Any) -> str:
    """A value of `ansible-inventory --list`, which marks text from outside."""
    return str(value["__ansible_unsafe"] if isinstance(value, dict) else value)


def recap(lines: list[str]) -> dict[str, dict[str, int]]:
    """Host -> its counts, from the end of a playbook's output."""
    start = max((number for number, line in enumerate(lines) if line.startswith("PLAY RECAP")), default=len(lines))
    rows = (re.match(r"(\S+)\s+:\s+(ok=.*)", line) for line in lines[start:])
    return {row[1]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", row[2])} for row in rows if row}
