#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: packages_ready
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Wait until the packages of a host can be changed
description:
  - Waits until cloud-init has ended, which writes apt's sources and installs packages on a new instance while it can be
    reached already.
  - On Debian and Ubuntu installs C(python3-apt), which M(ansible.builtin.apt) needs, and fetches apt's lists where one
    is missing, older than the sources or too old. Whoever else is at work with apt is waited for, also for the lock of
    the lists.
options:
  apt:
    description:
      - What is needed of apt. With V(unused) the module waits for cloud-init alone, which suits any package manager.
      - With V(usable) M(ansible.builtin.apt) works; with V(fresh) the lists are there, too.
    type: str
    choices: [unused, usable, fresh]
    default: fresh
  max_age:
    description: Age in seconds from which lists are fetched again.
    type: int
    default: 3600
  timeout:
    description: How long to wait for others in seconds, all in all.
    type: int
    default: 600
extends_documentation_fragment: neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is fetched or installed.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Ensure that packages can be installed
  neuronops.vllm.packages_ready:
"""

RETURN = r"""
usable:
  description:
    - Whether M(ansible.builtin.apt) works. It does not where there is no apt, and in check mode perhaps not yet.
  returned: success
  type: bool
reasons:
  description: Why there was something to do, as sentences. The lists alone make no change.
  returned: success
  type: list
  elements: str
  sample: [python3-apt is not installed]
"""

import glob
import os
import re
import shutil
import time

from ansible.module_utils.basic import AnsibleModule

LISTS = "/var/lib/apt/lists"
STAMP = "/var/lib/apt/periodic/update-success-stamp"
SOURCES = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/*"]
BOOT = "/run/cloud-init"  # there from early in the boot wherever cloud-init runs
PYTHON = "/usr/bin/python3"  # where the distribution puts its own modules
AT_WORK = re.compile(r"Could not get lock|Unable to (?:acquire|lock)")
UNREACHABLE = re.compile(r"^(?:E: |W: Failed to fetch|Err:)", re.MULTILINE)
PAUSE = 5  # seconds
TRIES = 3  # to fetch, where a server does not answer


class NotReadyError(Exception):
    """Packages cannot be changed; the message says why."""


class Host:
    """The host's package manager, which others use too."""

    def __init__(self, run_command, timeout):
        self.run_command = run_command
        self.timeout, self.end = timeout, time.monotonic() + timeout

    def left(self):
        """Return how many seconds there are to wait; at least one, so that who is not at work is met."""
        return max(1, int(self.end - time.monotonic()))

    def run(self, *command, seconds=60):
        """Return (status, output, errors) of a program that asks no questions; status is 124 where it did not end."""
        try:
            return self.run_command(
                ["timeout", str(seconds), *command],
                environ_update={"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
                handle_exceptions=False,
            )
        except OSError as error:
            return 127, "", str(error)

    def wait_for_boot(self):
        """Wait until cloud-init has ended. What it made of the instance is not judged here."""
        if not os.path.isdir(BOOT) or not shutil.which("cloud-init"):
            return
        if self.run("cloud-init", "status", "--wait", seconds=self.left())[0] == 124:
            raise NotReadyError(
                "cloud-init is still at work after {0} seconds, and nothing was changed. See what it waits for with "
                "`cloud-init status --long`, and run this again when it has ended".format(self.timeout)
            )

    def apt(self, *arguments):
        """Run apt-get, wait for whoever holds a lock, and return its output."""
        tries = 0
        while True:
            wait = ["-o", "DPkg::Lock::Timeout={0}".format(self.left())]
            status, output, errors = self.run("apt-get", "-q", "-y", *wait, *arguments, seconds=self.left() + 600)
            if status == 124:
                raise NotReadyError("apt-get {0} does not end".format(" ".join(arguments)))
            if AT_WORK.search(errors):
                if time.monotonic() >= self.end:
                    raise NotReadyError("Failed to lock apt: " + errors.strip())
            elif status or (arguments[0] == "update" and UNREACHABLE.search(errors)):
                tries += 1
                if tries >= TRIES or arguments[0] != "update":
                    raise NotReadyError(
                        "Failed to {0}: {1}".format(
                            "update apt's lists" if arguments[0] == "update" else "run apt-get " + " ".join(arguments),
                            errors.strip() or output.strip()[-2000:],
                        )
                    )
            else:
                return output
            time.sleep(PAUSE)

    def usable(self):
        """Say whether ansible.builtin.apt can work."""
        return self.run(PYTHON, "-c", "import apt, apt_pkg")[0] == 0

    def stale(self, max_age):
        """Say why the lists have to be fetched, or nothing."""

        # Without its caches, which it would write.
        question = ["apt-get", "indextargets", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
        question += ["--format", "$(CREATED_BY) $(REPO_URI) $(RELEASE)"]

        def listed(*options):
            lines = self.run(*question, *options)[1].splitlines()
            return {line for line in lines if line.startswith("Packages ")}

        missing = listed("--no-release-info") - listed()
        if missing:
            return "lists are missing: " + ", ".join(sorted(line.partition(" ")[2] for line in missing))
        fetched = max(modified(path) for path in (LISTS, STAMP))
        sources = [modified(path) for pattern in SOURCES for path in glob.glob(pattern)]
        if any(source > fetched for source in sources):
            return "the sources are newer than the lists"
        if time.time() - fetched > max_age:
            return "the lists are older than {0} seconds".format(max_age)
        return None


def modified(path):
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def ready(host, params, check):
    """Return the answer of the module."""
    host.wait_for_boot()
    if params["apt"] == "unused" or not shutil.which("apt-get"):
        return {"changed": False, "usable": False, "reasons": []}
    usable = host.usable()
    reasons = [] if usable else ["python3-apt is not installed"]
    stale = host.stale(params["max_age"]) if params["apt"] == "fresh" or not usable else None
    if stale:
        reasons.append(stale)
    if not check:
        if stale:
            host.apt("update")
            os.utime(LISTS)  # apt leaves the time of the folder where no list changed
        if not usable:
            host.apt("install", "--no-install-recommends", "python3-apt")
            usable = host.usable()
            if not usable:
                raise NotReadyError("python3-apt is installed, and {0} cannot import it".format(PYTHON))
    return {"changed": "python3-apt is not installed" in reasons, "usable": usable, "reasons": reasons}


def main():
    module = AnsibleModule(
        argument_spec={
            "apt": {"type": "str", "choices": ["unused", "usable", "fresh"], "default": "fresh"},
            "max_age": {"type": "int", "default": 3600},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        answer = ready(Host(module.run_command, module.params["timeout"]), module.params, module.check_mode)
    except NotReadyError as error:
        module.fail_json(msg="{0}.".format(str(error).rstrip(".")))
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
