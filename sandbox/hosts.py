# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers: hosts with systemd and sshd that stand in for instances, and the server of the repositories."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox import hardware
from sandbox.engine import docker
from sandbox.settings import SandboxError, Settings

# The least that systemd needs as the first process of a container. /sys/module is the stand-in kernel's, empty at boot.
SYSTEMD = (
    "--cgroupns=private", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
    "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec",  # noqa: S108 - the container's
    "--stop-signal", "SIGRTMIN+3", "--tmpfs", "/sys/module",
)  # fmt: skip
# Names of AWS's and GitHub's servers that lead to the sandbox's own: the roles run with their default addresses.
STOOD_IN_FOR = ("apt.repos.neuron.amazonaws.com", "pip.repos.neuron.amazonaws.com", "github.com")
BOOT_SECONDS = 60
REMOVE_SECONDS = 120
FACTS = "/etc/neuronops-sandbox"
_KNOWN_HOSTS_LOCK = threading.Lock()


@dataclass(frozen=True)
class Host:
    """A host as it should run."""

    name: str
    address: str
    instance_type: str
    image: str
    public_key: str
    labels: dict[str, str]


def container_name(settings: Settings, name: str) -> str:
    return f"{settings.name}-{name}"


def _own(settings: Settings) -> list[str]:
    return ["--label", f"neuronops.sandbox={settings.name}", "--network", settings.name]


def start(settings: Settings, host: Host) -> None:
    """Start a host and return when its sshd answers; its host key is then in the sandbox's known_hosts."""
    caches = []
    for tool in ("uv", "pip"):
        folder = settings.cache / tool
        folder.mkdir(parents=True, exist_ok=True)
        caches += ["--volume", f"{folder}:/root/.cache/{tool}"]
    devices = hardware.write(settings.state / "hardware", host.instance_type)
    labels = [argument for name, value in host.labels.items() for argument in ("--label", f"{name}={value}")]
    container = container_name(settings, host.name)
    docker(
        "run", "--detach", "--name", container, "--hostname", host.name, *_own(settings), "--ip", host.address,
        *SYSTEMD, "--volume", f"{devices}:/sys/bus/pci/devices:ro", *caches, *labels, host.image,
    )  # fmt: skip
    try:
        docker("exec", "--interactive", container, "sh", "-c", "cat > ~ubuntu/.ssh/authorized_keys",
               stdin=host.public_key.encode())  # fmt: skip
        # Where the stand-in neuron-ls finds what the real one asks EC2 for.
        known = [("instance_type", host.instance_type), ("instance_id", host.labels.get("neuronops.instance", ""))]
        for name, value in known:
            write = f"mkdir -p {FACTS} && cat > {FACTS}/{name}"
            docker("exec", "--interactive", container, "sh", "-c", write, stdin=f"{value}\n".encode())
        _wait_for_ssh(settings, container, host.address)
    except BaseException:
        docker("rm", "--force", "--volumes", container, check=False)
        raise


def run_user_data(settings: Settings, host: Host, script: bytes) -> None:
    """Start what an instance is given to run at its first boot, as cloud-init does: as root, with its log in a file."""
    container, path = container_name(settings, host.name), "/var/lib/cloud/instance/scripts/part-001"
    write = f"mkdir -p $(dirname {path}) && cat > {path} && chmod 0700 {path}"
    docker("exec", "--interactive", container, "sh", "-c", write, stdin=script)
    log = "/var/log/cloud-init-output.log"
    run = f'env -u HOME {path} >> {log} 2>&1; echo "ended with status $?" >> {log}'
    docker("exec", "--detach", container, "sh", "-c", run)


def _wait_for_ssh(settings: Settings, container: str, address: str) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        scan = subprocess.run(
            ["ssh-keyscan", "-T", "2", "-t", "ed25519", address], capture_output=True, text=True, check=False
        )
        if scan.stdout.strip():
            break
        if time.monotonic() > deadline:
            log = docker("exec", container, "journalctl", "--no-pager", "--lines", "20", check=False)
            raise SandboxError(
                f"{container} did not offer SSH at {address} within {BOOT_SECONDS} s. Its log ends:\n{log}"
            )
        time.sleep(0.3)
    # The key comes over the network of this machine, from a container just made: nobody is in between.
    _remember_host_key(settings, address, scan.stdout.strip())


def _remember_host_key(settings: Settings, address: str, line: str) -> None:
    known = settings.state / "known_hosts"
    with _KNOWN_HOSTS_LOCK:
        lines = known.read_text().splitlines() if known.exists() else []
        lines = [other for other in lines if other.split()[0] != address]
        known.write_text("\n".join([*lines, line]) + "\n")


def listing(settings: Settings) -> list[dict[str, str]]:
    """Every container of the sandbox, also stopped ones: name, state, address and labels."""
    ids = docker("ps", "--all", "--quiet", "--filter", f"label=neuronops.sandbox={settings.name}").split()
    try:
        inspected = json.loads(docker("inspect", *ids)) if ids else []
    except SandboxError as error:
        if "No such object" not in str(error):
            raise
        return listing(settings)  # one of them was removed in between
    found = []
    for container in inspected:
        networks = container["NetworkSettings"]["Networks"]
        found.append(
            {
                **{key: value for key, value in container["Config"]["Labels"].items() if value},
                "name": container["Name"].lstrip("/"),
                "state": container["State"]["Status"],
                "address": (networks.get(settings.name) or {}).get("IPAddress") or "",
            }
        )
    return sorted(found, key=lambda entry: entry["name"])


def connections(settings: Settings) -> Path:
    """The folder of Ansible's open SSH connections to the hosts."""
    return settings.state / "ssh"


def disconnect(settings: Settings) -> None:
    """End those connections."""
    for control in connections(settings).glob("*"):
        subprocess.run(["ssh", "-o", f"ControlPath={control}", "-O", "exit", "host"], capture_output=True, check=False)


def _remove(names: Callable[[], list[str]]) -> None:
    """Remove containers until none is left; the stand-in for EC2 may have begun with some of them when it was ended."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while found := names():
        try:
            docker("rm", "--force", "--volumes", *found)
        except SandboxError as error:
            if "already in progress" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def remove_instances(settings: Settings) -> None:
    """Remove the hosts that stand in for instances."""
    _remove(lambda: [entry["name"] for entry in listing(settings) if "neuronops.instance" in entry])


def remove(settings: Settings) -> None:
    """Remove every container on the sandbox's network, whoever made it there."""

    def names() -> list[str]:
        of_the_network = docker("ps", "--all", "--filter", f"network={settings.name}", "--format", "{{.Names}}")
        return sorted({entry["name"] for entry in listing(settings)} | set(of_the_network.split()))

    _remove(names)


def start_repositories(settings: Settings, image: str) -> None:
    """Start the server of the repositories, which answers under the names of AWS's and GitHub's servers."""
    container = container_name(settings, "repositories")
    if any(entry["name"] == container and entry["state"] == "running" for entry in listing(settings)):
        return
    docker("rm", "--force", container, check=False)
    served = settings.state / "served"
    served.mkdir(exist_ok=True)
    log = settings.state / "requests.log"
    log.touch()
    for name in ("server.crt", "server.key"):
        shutil.copy(settings.state / name, served)
    (served / "server.key").chmod(0o600)
    server = Path(__file__).parent / "repositories" / "server.py"
    aliases = [argument for name in STOOD_IN_FOR for argument in ("--network-alias", name)]
    docker(
        "run", "--detach", "--name", container, "--hostname", "repositories", *_own(settings), *aliases,
        "--ip", settings.repositories_address,
        "--volume", f"{settings.served}:/srv/www:ro", "--volume", f"{server}:/srv/server.py:ro",
        "--volume", f"{served}:/srv/tls:ro", "--volume", f"{log}:/srv/requests.log",
        image, "python3", "/srv/server.py", "--root", "/srv/www", "--certificate", "/srv/tls/server.crt",
        "--key", "/srv/tls/server.key", "--log", "/srv/requests.log",
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while True:
        probe = ["curl", "--silent", "--output", "/dev/null", f"https://{STOOD_IN_FOR[0]}/"]
        done = subprocess.run(["docker", "exec", container, *probe], capture_output=True, check=False)
        if done.returncode == 0:
            return
        running = docker("inspect", "--format", "{{.State.Running}}", container, check=False) == "true"
        if not running or time.monotonic() > deadline:
            raise SandboxError(
                f"The server of the repositories does not answer: {docker('logs', container, check=False)}"
            )
        time.sleep(0.2)
