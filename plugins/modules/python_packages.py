#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: python_packages
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Install exactly the packages of a lock into a Python environment, and prove them
description:
  - Brings a virtual environment to the versions of a lock. Only files whose hashes are in the lock are accepted, and a
    lock with anything in it besides C(name==version), SHA-256 hashes and comments is refused.
  - A package that is damaged (files missing or cut off, installed twice, without its metadata) is removed and
    installed anew.
  - After a change each module of O(imports) is imported by the environment's interpreter and C(pip check) must find
    nothing wrong with the packages of the lock; otherwise the module fails.
  - The lock is left in the environment as C(neuronops/NAME.lock). C(neuronops/constraints.txt) there has the exact
    versions of all such locks, for whoever installs more and must not change them.
  - While it works, a line says every ten seconds what it is busy with.
options:
  name:
    description: What these packages are; the name of the lock within the environment.
    type: str
    required: true
  path:
    description: Folder of the environment, or a link to it.
    type: path
    required: true
  lock:
    description:
      - The packages as a requirements file with hashes, as P(neuronops.vllm.python_lock#module) returns it.
      - Required when O(state=present). In check mode it may be empty, where there is none yet.
    type: str
  state:
    description: With V(absent) the packages of C(neuronops/NAME.lock) that no other lock has are removed.
    type: str
    choices: [present, absent]
    default: present
  installer:
    description: The program that installs; the result is the same.
    type: str
    choices: [uv, pip]
    default: uv
  imports:
    description: Modules that must be importable.
    type: list
    elements: str
    default: []
  excluded:
    description: Packages that must not be in the lock, and of which it does not count as a fault that they are missing.
    type: list
    elements: str
    default: []
  wheels:
    description:
      - Folder of the host with wheels of the lock that no index has, such as those that were built from source. It is
        looked into besides the indexes, and besides a wheelhouse.
    type: path
    version_added: 0.2.0
  exact:
    description: Remove packages that are in no lock and no manifest of the environment.
    type: bool
    default: false
extends_documentation_fragment:
  - neuronops.vllm.packages
  - neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: neuronops.vllm.python_lock
"""

EXAMPLES = r"""
- name: Install what was resolved
  neuronops.vllm.python_packages:
    name: notebook
    path: /opt/notebook
    lock: "{{ notebook.lock }}"
    imports: [notebook]
"""

RETURN = r"""
packages:
  description: The packages of the lock, and the version of each that is installed.
  type: dict
  returned: success
foreign:
  description: Packages that are installed and in no lock and no manifest of the environment.
  type: list
  elements: str
  returned: success
"""

import contextlib
import glob
import os
import shutil
import stat
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import forms, turns
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import (
    MANIFESTS,
    normalised,
    observe,
    observe_packages,
    shown,
    site_packages,
)
from ansible_collections.neuronops.vllm.plugins.module_utils.files import write_at_once
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import (
    ARGUMENTS,
    PackagesError,
    check_lock,
    have_uv,
    index_arguments,
    link_arguments,
    make_folders,
    parse_lock,
    run,
    same_version,
)

# What builds a source distribution, and therefore comes first.
BUILDERS = ("setuptools", "wheel")
SECONDS_TO_WAIT = 1800
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    print("Importing", name, flush=True)
    importlib.import_module(name)
"""


class Environment:
    """A virtual environment and what is to be in it."""

    def __init__(self, module):
        self.module = module
        self.path = os.path.realpath(module.params["path"])
        self.python = os.path.join(self.path, "bin", "python")
        self.own = os.path.join(self.path, MANIFESTS)
        self.lock_file = os.path.join(self.own, module.params["name"] + ".lock")
        self.log = os.path.join(self.own, module.params["name"] + ".log")
        self.sources = module.params["sources"]
        self.uv = None
        cache = os.environ.get("UV_CACHE_DIR") or os.path.join(os.environ.get("HOME") or "/root", ".cache", "uv")
        if os.path.isdir(cache) and os.path.isdir(self.path) and os.stat(cache).st_dev != os.stat(self.path).st_dev:
            # uv would try to link across file systems, and warn.
            os.environ["UV_LINK_MODE"] = "copy"

    def run(self, command):
        # The tools of the environment look for each other on PATH, neuronx-cc among them.
        return run(command, self.sources, self.log, path=os.path.join(self.path, "bin"))

    def say(self, text):
        """Write to the log, of which the last line is what the person watching sees."""
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    @contextlib.contextmanager
    def turn(self):
        """Work on the environment alone: the run before, cut off from us, may still be at it."""
        make_folders(self.own)
        with turns.open_file(os.path.join(self.own, ".busy")) as file:
            self.wait_for_turn(file)
            with open(self.log, "w"):
                pass  # what was said before is of no use any more
            yield

    def wait_for_turn(self, file):
        for _second in range(SECONDS_TO_WAIT):
            if turns.attempt(file):
                return
            self.say("Waiting for another installation into %s: %s" % (self.path, turns.holder(file)))
            time.sleep(1)
        raise PackagesError(
            "another installation into %s, %s, has been at work for %d s. Nothing was changed. Run again when it has "
            "ended, or end it if it hangs" % (self.path, turns.holder(file), SECONDS_TO_WAIT)
        )

    def other_locks(self):
        """Return {name: version} of everything that other roles put here, according to their locks and manifests."""
        packages = {}
        for path in sorted(glob.glob(os.path.join(glob.escape(self.own), "*.lock"))):
            if path != self.lock_file:
                packages.update(self.kept(path))
        for role, manifest in observe(self.path)["manifests"].items():
            if role != self.module.params["name"]:
                packages.update(manifest.get("packages", {}))
        return {normalised(name): version for name, version in packages.items()}

    def kept(self, path):
        """Return {name: version} of a lock that a role left here; nothing of one that is damaged, which is said."""
        try:
            return parse_lock(read(path))
        except (OSError, forms.FormError) as error:
            self.module.warn("%s is damaged, and counts as none: %s" % (path, error))
            return {}

    def command(self, action):
        """Return the start of the command that installs or uninstalls, or checks."""
        if self.module.params["installer"] == "pip":
            return [self.python, "-I", "-m", "pip"] + action
        if not self.uv:
            self.say("Making sure that uv is there")
            base = os.path.realpath(self.python)
            self.uv = have_uv(
                self.module.params["uv_requirement"], self.module.params["tools_path"], base, self.sources, self.log
            )
        return [self.uv, "pip"] + action + ["--python", self.python]

    def install(self, lock, missing):
        """Install the packages of the lock, first those that others are built with."""
        builders = [name for name in BUILDERS if name in missing]
        texts = [lock_part(lock, builders)] if builders and len(builders) < len(missing) else []
        for text in texts + [lock]:
            with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
                file.write(text)
            try:
                command = self.command(["install"]) + ["--no-deps", "--require-hashes", "--no-build-isolation"]
                if self.module.params["installer"] == "pip":
                    command.append("--no-compile")  # as uv does; what is used is compiled when it is first imported
                command += index_arguments(self.sources, self.module.params["installer"])
                if self.module.params["wheels"]:
                    command += link_arguments(
                        self.sources, self.module.params["installer"], self.module.params["wheels"]
                    )
                self.run(command + ["-r", file.name])
            finally:
                os.unlink(file.name)

    def uninstall(self, names):
        if names:
            yes = ["--yes"] if self.module.params["installer"] == "pip" else []
            self.run(self.command(["uninstall"]) + yes + sorted(names))

    def prove(self, wanted):
        """Fail unless everything can be imported and no package of the lock lacks anything."""
        if self.module.params["imports"]:
            self.run([self.python, "-I", "-c", IMPORT] + self.module.params["imports"])
        pip = os.path.isdir(os.path.join(site_packages(self.path)[0], "pip"))
        command = [self.python, "-I", "-m", "pip", "check"] if pip else self.command(["check"])
        try:
            self.run(command)
        except PackagesError as error:
            excluded = {normalised(name) for name in self.module.params["excluded"]}
            complaints = [line for line in str(error).split("\n") if complains(line, wanted, excluded)]
            if complaints:
                raise PackagesError("pip check says: %s" % "; ".join(complaints)) from error

    def keep_lock(self, lock):
        """Leave the lock in the environment, and the versions of all locks for whoever installs more."""
        write_at_once(self.lock_file, lock)
        self.write_constraints()

    def forget_lock(self):
        if os.path.exists(self.lock_file):
            os.unlink(self.lock_file)
        self.write_constraints()

    def clean_cache(self, names):
        self.run([self.command([])[0], "cache", "clean"] + sorted(names))

    def write_constraints(self):
        packages = {}
        for path in sorted(glob.glob(os.path.join(glob.escape(self.own), "*.lock"))):
            packages.update(self.kept(path))
        lines = ["%s==%s" % item for item in sorted(packages.items())]
        write_at_once(os.path.join(self.own, "constraints.txt"), "".join(line + "\n" for line in lines))


def complains(line, wanted, excluded):
    """Say whether a line of `pip check` is about a package of the lock, and not one that is left out on purpose."""
    words = line.split()
    if len(words) < 3 or normalised(words[0]) not in wanted:
        return False
    return not ("which is not installed" in line and any(normalised(word.strip(",")) in excluded for word in words[2:]))


def lock_part(lock, names):
    """Return a lock of some packages of a lock."""
    packages = forms.lock(lock)
    return forms.lock_text({name: packages[name] for name in names if name in packages})


def open_to_all(path):
    """Let every user read an environment and run what is in it, and nobody else write there, whatever the umask was.

    uv's lock file is made for all to write. pip.conf may hold a password and keeps its mode.
    """
    closed = []
    for folder, _folders, files in os.walk(path):
        for entry, wanted in [(folder, 0o555)] + [(os.path.join(folder, name), 0o444) for name in files]:
            status = os.lstat(entry)
            if stat.S_ISLNK(status.st_mode) or entry == os.path.join(path, "pip.conf"):
                continue
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o100:
                wanted = 0o555
            if mode & wanted != wanted or mode & 0o022:
                os.chmod(entry, (mode | wanted) & ~0o022)
                closed.append(entry)
    return closed


def forget(environment, names):
    """Remove what is left of damaged packages, so that they are installed from the start."""
    for folder in site_packages(environment.path):
        for entry in os.listdir(folder):
            path = os.path.join(folder, entry)
            if shown(entry) in names and entry.startswith("~"):
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            elif entry.endswith(".dist-info") and normalised(entry[: -len(".dist-info")].rpartition("-")[0]) in names:
                shutil.rmtree(path)


def wrong_packages(wanted, installed, damaged):
    """Return {name: (what there is, what there should be)} of the packages that must be installed."""
    wrong = {}
    for name, version in wanted.items():
        there = installed.get(name)
        if name in damaged:
            wrong[name] = ("%s, damaged: %s" % (there, damaged[name]), version)
        elif there is None or not same_version(there, version):
            wrong[name] = (there, version)
    return wrong


def change(module, environment, wanted, wrong, unwanted, remains):
    """Do the work; everything in it can be repeated after it was killed."""
    with environment.turn():
        open_to_all(environment.path)
        installed, damaged = observe_packages(environment.path)
        wrong = wrong_packages(wanted, installed, damaged)
        forget(environment, [name for name in wrong if name in damaged] + remains)
        environment.uninstall(unwanted)
        if module.params["state"] == "absent":
            environment.forget_lock()
            return
        if wrong:
            still_wrong = install(environment, wanted, wrong)
            if still_wrong and module.params["installer"] == "uv":
                # uv links files into environments: one that was damaged in place is damaged in uv's cache too.
                environment.clean_cache(still_wrong)
                forget(environment, still_wrong)
                still_wrong = install(environment, wanted, still_wrong)
            open_to_all(environment.path)
            still_wrong = still_wrong and wrong_packages(wanted, *observe_packages(environment.path))
            if still_wrong:
                raise PackagesError("installed, and still not right: %s" % still_wrong)
        environment.prove(wanted)
        environment.keep_lock(environment.module.params["lock"])


def install(environment, wanted, wrong):
    """Install packages and return what is wrong then."""
    environment.install(environment.module.params["lock"], wrong)
    return wrong_packages(wanted, *observe_packages(environment.path))


def read(path):
    """Return a file's text; bytes that are no UTF-8 come as a character that no lock has."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return file.read()


def understood(lock):
    """Return a lock as it is kept and installed: its comments and what was understood; raises forms.FormError."""
    packages = forms.lock(lock)
    head = [line for line in lock.split("\n") if line.startswith("#")]
    return "".join(line + "\n" for line in head) + (forms.lock_text(packages))


def main():
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            path=dict(type="path", required=True),
            lock=dict(type="str"),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            installer=dict(type="str", choices=["uv", "pip"], default="uv"),
            imports=dict(type="list", elements="str", default=[]),
            excluded=dict(type="list", elements="str", default=[]),
            exact=dict(type="bool", default=False),
            wheels=dict(type="path"),
            **ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    # What is installed is for all users.
    os.umask(0o022)
    try:
        forms.form("file name", module.params["name"], "name")
        module.params["lock"] = understood(module.params["lock"] or "")
        wanted = parse_lock(module.params["lock"]) if module.params["state"] == "present" else {}
        for name in module.params["excluded"]:
            forms.form("package name", name, "an excluded package")
        for name in module.params["imports"]:
            forms.form("line of text", name, "a module to import")
    except forms.FormError as error:
        module.fail_json(
            msg="The lock of %s is refused, and nothing was installed: %s."
            % (ascii(module.params["name"])[1:-1], error)
        )
    environment = Environment(module)
    present = module.params["state"] == "present"
    lock_there = read(environment.lock_file)
    there_before = environment.kept(environment.lock_file)

    if present and not wanted and not module.check_mode:
        module.fail_json(msg="The lock of %s is empty; python_lock makes one." % module.params["name"])
    try:
        check_lock(wanted, [], [], module.params["excluded"])
    except PackagesError as error:
        module.fail_json(
            msg="The lock of %s is refused, and nothing was installed: %s." % (module.params["name"], error)
        )

    there = observe(environment.path)
    if not there["python"]["works"] and not (module.check_mode or not present):
        module.fail_json(
            msg="There is no working environment in %s: %s. The role neuronops.vllm.neuron_venv makes or rebuilds it."
            % (module.params["path"], there["python"]["problem"] or "it does not exist")
        )
    others = environment.other_locks()
    installed, damaged = there["packages"], there["damaged"]
    wrong = wrong_packages(wanted, installed, damaged)
    foreign = sorted(set(installed) - set(wanted) - set(others) - set(there_before))
    # Dropped from this lock since the last time, and in no other.
    unwanted = sorted((set(there_before) - set(wanted) - set(others)) & set(installed))
    if module.params["exact"]:
        unwanted, foreign = sorted(set(unwanted) | set(foreign)), []
    remains = sorted(name for name in damaged if name.startswith("~"))
    lock_wanted = module.params["lock"] if present else ""
    changed = bool(wrong or unwanted or remains or lock_there != (lock_wanted or "")) or (present and not wanted)

    result = dict(changed=changed, foreign=foreign)
    result["diff"] = dict(
        before="".join(["%s %s\n" % (name, old) for name, (old, _new) in sorted(wrong.items()) if old])
        + "".join("%s %s\n" % (name, installed[name]) for name in unwanted),
        after="".join("%s %s\n" % (name, new) for name, (_old, new) in sorted(wrong.items())),
    )
    if changed and not module.check_mode and there["exists"]:
        try:
            change(module, environment, wanted, wrong, unwanted, remains)
        except (PackagesError, OSError) as error:
            module.fail_json(
                msg="The packages of %s could not be installed into %s: %s"
                % (module.params["name"], module.params["path"], error),
                log=environment.log,
            )
        installed = observe_packages(environment.path)[0]
    # As the folders spell the versions, which is how the next observation reads them.
    result["packages"] = {name: installed.get(name, version) for name, version in wanted.items()}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
