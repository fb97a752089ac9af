# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and remove a whole sandbox."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import yaml
from cryptography import x509

from plugins.plugin_utils import stacks
from sandbox import certificates, ec2, engine, hardware, hosts, image, network
from sandbox.repositories import plugin_remote
from sandbox.repositories.build import build as build_repositories
from sandbox.settings import SandboxError, Settings

# Less than this left, and the certificates are made anew rather than expire during a run.
CERTIFICATE_MARGIN_DAYS = 7
# Longest context that is served, in tokens: a backend may need to be told, and a short one is quick.
CONTEXT = 512


def up(settings: Settings, ec2_too: bool = True, systems: list[str] | None = None) -> None:
    """Have the sandbox running. What already runs stays; when the first start fails, nothing is left running."""
    settings.prepare()
    engine.ensure()
    with _all_or_nothing(settings):
        network.ensure(settings)
        _make_secrets(settings)
        for instance_type in hardware.INSTANCE_TYPES:
            hardware.write(settings.state / "hardware", instance_type)
        (settings.cache / "pip").mkdir(exist_ok=True)
        (settings.cache / "uv").mkdir(exist_ok=True)
        wanted = list(dict.fromkeys([image.DEFAULT_SYSTEM, *(systems or [])]))
        # The first time, both take a while: one mostly waits for the network, the other computes.
        with ThreadPoolExecutor(max_workers=2) as pool:
            bases = [pool.submit(image.ensure_base, system, settings.cache) for system in wanted]
            _make_repositories(settings)
            for base in bases:
                base.result()
        for system in wanted:
            image.ensure(settings, system)
        hosts.start_repositories(settings, image.ensure(settings, "git"))
        if ec2_too:
            ec2.start(settings)


def runs(settings: Settings) -> bool:
    """Whether anything of the sandbox runs."""
    return ec2.read(settings) is not None or (engine.answers() and bool(hosts.listing(settings)))


@contextlib.contextmanager
def _all_or_nothing(settings: Settings) -> Iterator[None]:
    ran_before = runs(settings)
    try:
        yield
    except BaseException:
        if not ran_before:
            down(settings)
        raise


def _make_secrets(settings: Settings) -> None:
    """The SSH key of the person who launches, and the certificates; kept as long as the sandbox lives."""
    key = settings.state / "id_ed25519"
    if not key.exists():
        if not shutil.which("ssh-keygen"):
            engine.ensure_command("ssh-keygen", "openssh-client")
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", settings.name, "-f", str(key)]
        subprocess.run(command, check=True, capture_output=True)
    server = settings.state / "server.crt"
    if server.exists():
        left = x509.load_pem_x509_certificate(server.read_bytes()).not_valid_after_utc - datetime.now(timezone.utc)
        if left.days >= CERTIFICATE_MARGIN_DAYS:
            return
    certificates.make(settings.state, f"Stand-in certificate authority of {settings.name}", list(hosts.STOOD_IN_FOR))


def _make_repositories(settings: Settings) -> None:
    """Have the tree that is served, as a copy of the cached one, and the variables that plays against it need."""
    engine.ensure_command("gpg", "gnupg")
    cached = settings.cache / "repositories"
    cached.mkdir(exist_ok=True)
    with cached.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        facts = build_repositories(cached)
        made_from = settings.repositories / "facts.json"
        if not made_from.exists() or made_from.read_bytes() != (cached / "facts.json").read_bytes():
            (settings.served / ".control").mkdir(parents=True, exist_ok=True)
            # The server may be running: each part is swapped whole.
            for part in (cached / "www").glob("[!.]*"):
                new = settings.served / f".{part.name}.new"
                shutil.rmtree(new, ignore_errors=True)
                shutil.copytree(part, new, symlinks=True)
                shutil.rmtree(settings.served / part.name, ignore_errors=True)
                new.replace(settings.served / part.name)
            shutil.copy(cached / "facts.json", made_from)
    settings.variables_file.write_text("# Written by `python -m sandbox up`.\n---\n" + yaml.safe_dump(variables(facts)))


def variables(facts: dict[str, Any]) -> dict[str, Any]:
    """What plays against the sandbox need, from what build() says of its repositories."""
    stack = f"neuron_stack | default('{stacks.load()['default']}')"
    return {
        "neuron_driver_repository_key_fingerprint": facts["fingerprint"],
        "vllm_server_model": image.MODEL,
        "vllm_server_max_model_len": CONTEXT,
        # The repositories have their names on the sandbox's network alone: this machine cannot resolve from them.
        "neuron_venv_lock_resolver": "{{ inventory_hostname }}",
        "neuron_stack_overrides": f"{{{{ sandbox_overrides | combine(sandbox_plugins[{stack}] | default({{}})) }}}}",
        "sandbox_overrides": {
            # The containers share this machine's kernel; what DKMS builds against are Debian's headers.
            "kernel": {"minimum": None, "below": None},
            "vllm": {"commit": f"{{{{ sandbox_commits[{stack}] | default(none) }}}}"},
        },
        "sandbox_commits": {
            **{f"vllm-{version}": commit for version, commit in facts["commits"].items()},
            **facts["light_commits"],
        },
        # The stand-in of a plugin has commits of the sandbox's own; a stack without a plugin must be told of none.
        "sandbox_plugins": {
            name: {"plugin": {"commit": facts["plugin_commits"][entry["plugin"]["ref"]]}}
            for name, entry in plugin_remote.entries().items()
            if entry["plugin"]["ref"] in facts["plugin_commits"]
        },
    }


def ec2_down(settings: Settings) -> None:
    """Remove the stand-in for EC2 and its instances, and leave the network and the repositories."""
    ec2.stop(settings)
    hosts.disconnect(settings)
    if engine.answers():
        hosts.remove_instances(settings)


def down(settings: Settings) -> None:
    """Remove all of the sandbox: processes, containers, network, images and keys. Caches stay."""
    ec2.stop(settings)
    hosts.disconnect(settings)
    if engine.answers():
        hosts.remove(settings)
        network.remove(settings)
        image.remove(settings)
    shutil.rmtree(settings.state, ignore_errors=True)


def environment(settings: Settings) -> dict[str, str]:
    """What points AWS tools and Ansible at the running sandbox."""
    state = ec2.read(settings)
    if not state:
        raise SandboxError(f"{settings.name} has no stand-in for EC2 running. Start it: python -m sandbox up")
    return {
        **ec2.credentials(),
        "AWS_ENDPOINT_URL": state["endpoint"],
        "ANSIBLE_PRIVATE_KEY_FILE": str(settings.state / "id_ed25519"),
        "ANSIBLE_SSH_COMMON_ARGS": f"-o UserKnownHostsFile={settings.state / 'known_hosts'}",
        # Here, `down` finds the connections that Ansible keeps open, and ends them.
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(hosts.connections(settings)),
        # The stand-in is on the loopback: no proxy of the machine is in between.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
