# SPDX-License-Identifier: GPL-3.0-or-later
"""When packages cannot be changed, the message names the cause: on outputs of apt as the sandbox's containers gave."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
TEMPLATE = CHECKOUT / "roles/neuron_driver/templates/advice.j2"
COMMAND = (
    '\'/usr/bin/apt-get -y -o "Dpkg::Options::=--force-confdef" -o DPkg::Lock::Timeout=2 install '
    "'linux-headers-6.8.0-1021-aws=6.8' 'aws-neuronx-dkms=2.21.37.0'' failed: E: "
)


def advice(said: str, pins: str = "") -> str:
    # The expressions are Ansible's; those that are its own are these.
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - no HTML
    environment.tests["search"] = lambda text, pattern: re.search(pattern, text) is not None
    environment.filters["regex_findall"] = lambda text, pattern: re.findall(pattern, text)
    return environment.from_string(TEMPLATE.read_text()).render(
        __neuron_driver_said=said,
        _neuron_driver_url="https://apt.repos.neuron.amazonaws.com",
        _neuron_driver_repository={"suite": "jammy"},
        inventory_hostname="trn-7",
        _neuron_driver={
            "lock_timeout": 600,
            "repository_key_fingerprint": "00FA 2C10",
            "stack": {"host_packages": {"aws-neuronx-dkms": "2.21.37.0"}},
        },
        __neuron_driver_pins=pins,
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "No package matching 'linux-headers-6.8.0-1021-aws' is available",
            "The headers of kernel 6.8.0-1021-aws are not",
        ),
        ("No package matching 'aws-neuronx-dkms' is available", "has no such version for jammy"),
        ("no available installation candidate for aws-neuronx-dkms=2.21.37.0*", "has no such version for jammy"),
        (
            f"{COMMAND}Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend)",
            "Another program has held",
        ),
        ("Failed to lock apt for exclusive operation", "Another program has held"),
        (f"{COMMAND}Sub-process /usr/bin/dpkg returned an error code (1)\nNo space left on device", "is full"),
        (
            "Failed to update apt cache after 5 retries: \nE: GPG error: https://apt.repos.neuron.amazonaws.com "
            "bookworm InRelease: The following signatures were invalid: EXPKEYSIG 5749CAD8646D9185",
            "signed with an expired key",
        ),
        (
            "Failed to update apt cache after 5 retries: \nW: GPG error: NO_PUBKEY 5749CAD8646D9185",
            "not signed by the key",
        ),
        ("Failed to update apt cache after 5 retries: \nE: Could not resolve 'mirror.invalid'", "cannot be reached"),
        (f"{COMMAND}Error! Bad return status for module build on kernel: 6.8.0 (x86_64)", "could not be built"),
        (f"{COMMAND}something that nobody thought of", "A repeated run goes on"),
    ],
)
def test_the_cause_is_named(said: str, expected: str) -> None:
    text = advice(said)
    assert "trn-7" in text
    assert expected in text


FETCH = "Failed to update apt cache after 5 retries: "


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "E: Release file for http://a.example.com/ubuntu/dists/jammy-updates/InRelease is not valid yet "
            "(invalid for another 3h 12min 5s). Updates for this repository will not be applied.",
            "the host's clock",
        ),
        ("E: Release file for http://a.example.com/InRelease is expired (invalid since 3d).", "behind its original"),
        (
            "E: Repository 'http://a.example.com stable InRelease' changed its 'Suite' value",
            "--allow-releaseinfo-change",
        ),
        (
            "E: Failed to fetch http://a.example.com/Packages  File has unexpected size (1 != 2). Mirror sync",
            "being updated",
        ),
        ("E: Failed to fetch https://a.example.com/InRelease  401  Unauthorized", "/etc/apt/auth.conf.d"),
        ("Certificate verification failed: The certificate issuer is unknown.", "certificate of your company's proxy"),
        (
            "W: The key(s) in the keyring /etc/apt/keyrings/aws-neuron.gpg are ignored as the file is not readable",
            "may not read",
        ),
        ("E: Failed to fetch http://a.example.com/InRelease  Temporary failure resolving", "cannot be reached"),
    ],
)
def test_what_keeps_the_lists_from_being_updated_is_told_apart(said: str, expected: str) -> None:
    assert expected in advice(FETCH + said)


def test_a_pin_is_named_with_its_file_and_a_mirror_only_without_one() -> None:
    said = "no available installation candidate for aws-neuronx-tools=2.23.9.0*"
    policy = "/etc/apt/preferences.d/neuron:Pin: version 2.20.204.0"
    assert policy in advice(said, policy) and "mirror that is behind" not in advice(said, policy)
    assert "mirror that is behind" in advice(said)


def test_secure_boot_is_named() -> None:
    assert "mokutil" in advice("modprobe: ERROR: could not insert 'neuron': Key was rejected by service")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("modprobe: ERROR: could not insert 'neuron': Key was rejected by service", "mokutil --import"),
        ("modprobe: ERROR: could not insert 'neuron': Exec format error", "dmesg | grep -i neuron"),
    ],
)
def test_why_the_kernel_does_not_take_the_driver_is_said(tmp_path: Path, error: str, says: str) -> None:
    program = tmp_path / "modprobe"
    program.write_text(f'#!/bin/sh\necho "{error}" >&2\nexit 1\n')
    program.chmod(0o755)
    observed = {"driver": {"loaded": None, "installed": "2.21.37.0"}}
    role = {"name": "neuronops.vllm.neuron_driver", "tasks_from": "load"}
    play = [{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": role}]}]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local"]
    command += ["-e", json.dumps({"__neuron_driver_host": observed, "ansible_python_interpreter": sys.executable})]
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",  # as YAML, ansible-core 2.17 doubles the quotes of a message
    }
    done = subprocess.run(
        [*command, str(tmp_path / "play.yml")],
        cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "The Neuron driver 2.21.37.0 was not loaded on localhost" in said and error in said and says in said
