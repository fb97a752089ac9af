#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe what a host has of AWS Neuron."""

from __future__ import annotations

DOCUMENTATION = r"""
module: neuron_info
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Observe the AWS Neuron hardware, driver, packages, environments and services of a host
description:
  - Looks at everything that the roles of this collection depend on, in one process, and changes nothing.
  - Tells apart what is B(installed) (the package), what is B(built) for the running kernel (the module on disk) and
    what is B(loaded) (the module in the kernel), three things that C(modinfo) or C(apt) alone confuse.
  - Needs no driver to recognise the hardware, and no root; without root it sees only the caller's own processes in
    RV(driver.in_use_by) and RV(services[].executable_real_path), and may not read the kernel log.
options:
  environments:
    description:
      - Folders with Python environments to look at, for example C(/opt/aws_neuron_venv_pytorch).
      - A pattern such as C(/opt/neuronops/releases/*) stands for every environment that matches it.
    type: list
    elements: path
    default: []
  services:
    description: Names of systemd units to look at.
    type: list
    elements: str
    default: []
  files:
    description: Files whose content to take the SHA-256 of.
    type: list
    elements: path
    default: []
  filesystems:
    description: Folders of whose file system to say how much room it has; they need not be there yet.
    type: list
    elements: path
    default: []
  links:
    description: Paths that should be symbolic links to an environment.
    type: list
    elements: path
    default: []
  repository:
    description:
      - The package repository to compare the host's set-up with.
      - M(neuronops.vllm.neuron_repository) makes it so.
    type: dict
    suboptions:
      manager:
        description: The package manager whose files to look at.
        type: str
        choices: [apt, dnf]
        required: true
      url:
        description: Address of the repository.
        type: str
        required: true
      suite:
        description: Suite of the repository; only for apt, and required there.
        type: str
      components:
        description: Components of the suite; only for apt.
        type: list
        elements: str
        default: [main]
      fingerprint:
        description: Fingerprint of the key that signs the repository, 40 hexadecimal digits.
        type: str
        required: true
      renew_days:
        description: How many days before its end a key counts as one that must be fetched again.
        type: int
        default: 30
attributes:
  async:
    description: Its answer is checked on the controller, past which C(async) would take it.
    support: none
  check_mode:
    description: Runs in check mode, and returns the same.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
seealso:
  - module: neuronops.vllm.neuron_repository
"""

EXAMPLES = r"""
- name: Look at the host
  neuronops.vllm.neuron_info:
  register: neuron

- name: Refuse a host whose kernel still runs an older driver than the one installed
  ansible.builtin.assert:
    that: neuron.driver.loaded == neuron.driver.installed
    fail_msg: "{{ neuron.driver.loaded }} is loaded, in use by {{ neuron.driver.in_use_by }}"

- name: Look at every release of the environment, and at the server
  neuronops.vllm.neuron_info:
    environments:
      - /opt/aws_neuron_venv_pytorch
      - /opt/neuronops/releases/*
    services:
      - vllm.service
  register: neuron

- name: See when the repository's key ends
  neuronops.vllm.neuron_info:
    repository:
      manager: apt
      url: https://apt.repos.neuron.amazonaws.com
      suite: jammy
      fingerprint: 00FA 2C10 7926 0870 A76D 2C28 5749 CAD8 646D 9185
  register: neuron
"""

RETURN = r"""
root:
  description: Whether the module ran as root, and so saw the processes of all users.
  returned: always
  type: bool
kernel:
  description: The kernel.
  returned: always
  type: dict
  contains:
    release:
      description: Release of the running kernel.
      type: str
      sample: 6.8.0-1021-aws
    headers:
      description: Whether modules can be built for it; its headers are there.
      type: bool
    newest:
      description: >-
        The kernel that the next boot brings up, as GRUB or grubby is set; RV(kernel.release) where that is not known.
      type: str
      sample: 6.8.0-1024-aws
    newest_headers:
      description: Whether modules can be built for RV(kernel.newest).
      type: bool
    next_unknown:
      description: Why it is not known which kernel the next boot brings up, as a sentence; null where it is known.
      type: str
    compiler:
      description: The gcc that the running kernel was built with, where the host lacks it; null where it has it.
      type: str
      sample: gcc-12
hardware:
  description: The Neuron devices on the PCI bus.
  returned: always
  type: dict
  contains:
    present:
      description: Whether there is any.
      type: bool
    devices:
      description: Each device.
      type: list
      elements: dict
      contains:
        address:
          description: PCI address.
          type: str
          sample: 0000:00:1f.0
        family:
          description: Instance family that has such devices, one of inf1, inf2, trn1 and trn2.
          type: str
          sample: inf2
        device_id:
          description: PCI device id, without C(0x). The vendor's is 1d0f.
          type: str
          sample: "7264"
driver:
  description: The kernel module.
  returned: always
  type: dict
  contains:
    installed:
      description: Version of the installed package, or of the module on disk where there is no package; null for none.
      type: str
      sample: 2.21.37.0
    built_for_kernel:
      description: Whether that version is built for the running kernel.
      type: bool
    built_for_newest:
      description: Whether that version is built for RV(kernel.newest).
      type: bool
    loaded:
      description: Version of the module in the kernel; null when none is loaded, C(unknown) when it does not say.
      type: str
      sample: 2.20.28.0
    references:
      description: How many times the loaded module is in use, as the kernel counts.
      type: int
    in_use_by:
      description: The processes that have a Neuron device open. Their arguments are left out, they may hold secrets.
      type: list
      elements: dict
      contains:
        pid:
          description: Process id.
          type: int
        command:
          description: Name of the process.
          type: str
    not_at_boot:
      description: What keeps the driver from being loaded at boot, as sentences.
      type: list
      elements: str
      sample: [/etc/modprobe.d/company.conf keeps the module neuron away]
neuron_ls:
  description: What C(neuron-ls) says, the same for each of the three generations of its output.
  returned: always
  type: dict
  contains:
    path:
      description: The program, or null where it is not installed.
      type: str
      sample: /opt/aws/neuron/bin/neuron-ls
    rc:
      description: Its exit status; null where it is not installed, 1 without driver or device, 124 after 60 seconds.
      type: int
    error:
      description: What it complained about, or null.
      type: str
    cores:
      description: NeuronCores of all devices together.
      type: int
      sample: 2
    devices:
      description: Each device that the driver serves. What an older tool does not say is null.
      type: list
      elements: dict
      contains:
        index:
          description: Number N of C(/dev/neuronN).
          type: int
        address:
          description: PCI address, always with its domain.
          type: str
        cores:
          description: NeuronCores of the device.
          type: int
        core_ids:
          description: Numbers of its cores on the host; counted up where the tool does not give them.
          type: list
          elements: int
        memory_bytes:
          description: Device memory in bytes.
          type: int
          sample: 34359738368
        connected_to:
          description: Numbers of the devices it is linked to.
          type: list
          elements: int
        instance_type:
          description: EC2 instance type, from tools of SDK 2.32 or later.
          type: str
        instance_id:
          description: EC2 instance id, from tools of SDK 2.32 or later.
          type: str
        processes:
          description: Processes on the device, each with C(pid), C(command) and C(runtime_version).
          type: list
          elements: dict
packages:
  description: The C(aws-neuron*) packages of the system, by name.
  returned: always
  type: dict
  sample: {aws-neuronx-dkms: {version: 2.21.37.0, held: false, state: installed}}
dpkg_interrupted:
  description: Whether an earlier run of dpkg was cut off, so that apt refuses to work until it is repaired.
  returned: always
  type: bool
environments:
  description: The Python environments asked for, in the order asked; one that does not exist is listed too.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The path asked for.
      type: str
    real_path:
      description: The folder that it leads to.
      type: str
    exists:
      description: Whether there is anything.
      type: bool
    python:
      description: Its interpreter, with C(executable), C(version), C(works) and C(problem).
      type: dict
    packages:
      description: Versions of the installed Python packages by normalised name; that of C(vllm) names its build.
      type: dict
      sample: {torch: 2.5.1, vllm: 0.9.2+neuron218}
    damaged:
      description: Packages with files missing, by name, each with what is wrong.
      type: dict
    manifests:
      description: What the roles of this collection wrote down when they completed their work, by role.
      type: dict
    release:
      description:
        - What says that all of it is complete as a release, or null. M(neuronops.vllm.release_record) writes it.
        - One that does not agree with RV(environments[].manifests) counts as none.
      type: dict
      contains:
        schema:
          description: Number of the file's schema.
          type: int
        id:
          description: Name of the release.
          type: str
          sample: vllm-0.9.2-0a1b2c3d
        stack:
          description: Name of its stack.
          type: str
        completed_at:
          description: When it was completed, in UTC.
          type: str
          sample: "2026-11-25T15:30:00Z"
        layers:
          description: Names of its layers.
          type: list
          elements: str
    ignored:
      description: A sentence about each manifest, and a release, that was not understood and counts as none.
      type: list
      elements: str
    changed_files:
      description: Files named in a manifest that are gone or differ from it.
      type: list
      elements: str
services:
  description: The systemd units asked for.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The name asked for.
      type: str
    load_state:
      description: C(loaded), C(not-found), C(masked) ...
      type: str
    active_state:
      description: C(active), C(inactive), C(failed), C(activating) ...
      type: str
    sub_state:
      description: C(running), C(dead), C(auto-restart) ...
      type: str
    enabled:
      description: Whether it starts at boot.
      type: bool
    main_pid:
      description: Its main process, or null.
      type: int
    executable_real_path:
      description:
        - What the main process really runs, or null; for Python the interpreter of the environment whose libraries it
          has mapped, whatever the link it was started by leads to now.
      type: str
      sample: /opt/neuronops/releases/vllm-0.9.2-0a1b2c3d/bin/python
    configuration:
      description:
        - The hash of its configuration that the main process was started with, or null; the roles of this collection
          put it into the environment of what they start, to tell what runs from what should run.
      type: str
    needs_reload:
      description: Whether its unit was changed since systemd read it.
      type: bool
    ours:
      description: Whether its unit was written by role C(vllm_server); null where there is no unit.
      type: bool
    drop_ins:
      description: Its drop-ins, each with the names of those settings in it that role C(vllm_server) sets itself.
      type: dict
activations:
  description: What M(neuronops.vllm.vllm_activation) recorded of these services, newest last.
  returned: always
  type: list
  elements: dict
  contains:
    number:
      description: Its number on this host.
      type: int
    service:
      description: The service, without C(.service).
      type: str
    link:
      description: The link that was swapped, or null.
      type: str
    release:
      description: The Python environment.
      type: str
    configuration:
      description: The hash of its configuration.
      type: str
    stack:
      description: The id of the stack.
      type: str
    state:
      description: One of V(pending), V(proven), V(failed) and V(stopped).
      type: str
    at:
      description: When it was begun.
      type: str
      sample: "2026-01-31T12:00:00Z"
    ended_at:
      description: When it failed, was stopped or was replaced, or null.
      type: str
    reason:
      description: Why it failed, or null.
      type: str
    proof:
      description: The answer of its server, with C(at), C(seconds), C(pid) and C(tokens), or null.
      type: dict
    link_before:
      description: Where the link led before, or null.
      type: str
    back_from:
      description: The number of the failed activation that it went back from, or null.
      type: int
files:
  description: SHA-256 of the files asked for, by path; null for a file that is not there or cannot be read.
  returned: always
  type: dict
free_bytes:
  description: >-
    Bytes that are free for root in the file system of each of O(filesystems), by path; null where that cannot be found
    out.
  returned: always
  type: dict
  sample: {/opt/neuronops/releases: 400000000000}
links:
  description:
    - What is at the paths of O(links), by path, each with C(kind) and C(target). The kind is one of V(link), V(folder),
      V(file) and V(absent).
  returned: always
  type: dict
repository:
  description: How the set-up of the package repository compares; null when O(repository) was not given.
  returned: always
  type: dict
  contains:
    current:
      description: Whether it is as wanted.
      type: bool
    reasons:
      description: What is not, in sentences.
      type: list
      elements: str
    key:
      description: The key that signs it, as M(neuronops.vllm.neuron_repository) returns it; null without one.
      type: dict
record:
  description: What role C(neuron_driver) wrote down of its own work on this host, or null.
  returned: always
  type: dict
"""

import glob
import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import activations, environment, host, repository


def observe(run, options, release, root="/"):
    """Return everything that the module returns."""
    kernel = host.kernel(release, root, run)
    hardware = host.hardware(root)
    packages = host.packages(run, root)
    difference = repository.compare(options["repository"], root) if options["repository"] else None
    return {
        "root": os.geteuid() == 0,
        "kernel": kernel,
        "hardware": hardware,
        "driver": host.driver(run, packages, release, kernel["newest"], root),
        "neuron_ls": host.devices(run, hardware["present"], root),
        "packages": packages,
        "dpkg_interrupted": host.dpkg_interrupted(run, root),
        "environments": _environments(options["environments"]),
        "services": host.services(run, options["services"], root),
        "activations": activations.of_services(options["services"], root),
        "files": {path: host.sha256(path, root) for path in options["files"]},
        "free_bytes": {path: host.free_bytes(path, root) for path in options.get("filesystems") or []},
        "links": host.links(options.get("links") or [], root),
        "repository": difference and {name: difference[name] for name in ("current", "reasons", "key")},
        "record": host.record(root),
    }


def _environments(paths):
    """Observe each environment once, also where a link leads to another that was asked for."""
    seen, found = {}, []
    for path in _expanded(paths):
        real = os.path.realpath(path)
        if real not in seen:
            seen[real] = environment.observe(path)
        found.append(dict(seen[real], path=path, exists=os.path.lexists(path)))
    return found


def _expanded(paths):
    for path in paths:
        matches = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
        yield from matches


def main():
    module = AnsibleModule(
        argument_spec={
            "environments": {"type": "list", "elements": "path", "default": []},
            "services": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "filesystems": {"type": "list", "elements": "path", "default": []},
            "links": {"type": "list", "elements": "path", "default": []},
            "repository": {
                "type": "dict",
                "options": repository.OPTIONS,
                "required_if": [("manager", "apt", ["suite"])],
            },
        },
        supports_check_mode=True,
    )

    # Users other than root do not have modinfo on their PATH.
    environment_of_commands = {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"}

    def run(command):
        try:
            return module.run_command(command, handle_exceptions=False, environ_update=environment_of_commands)
        except OSError as error:
            return 127, "", str(error)

    try:
        found = observe(run, module.params, platform.release())
    except ValueError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
