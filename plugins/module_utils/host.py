# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe a host's kernel, Neuron hardware, driver, packages and services, without changing anything.

Files are read below `root`, so that the tests can lay out a host in a folder. Commands go through `run`, a function
that takes an argument list and returns (exit status, standard output, standard error), and 127 for a missing program.
"""

from __future__ import annotations

import glob
import json
import os
import re

from ansible_collections.neuronops.vllm.plugins.module_utils import activations, boot, files, forms, neuron_ls, versions

VENDOR = "0x1d0f"
FAMILIES = {
    "0x7064": "inf1",
    "0x7065": "inf1",
    "0x7066": "inf1",
    "0x7067": "inf1",
    "0x7164": "trn1",
    "0x7264": "inf2",
    "0x7364": "trn2",
}
TOOLS = "/opt/aws/neuron/bin"
DRIVER_PACKAGE = "aws-neuronx-dkms"
RECORD = "/var/lib/neuronops/neuron_driver.json"
_STARTED = re.compile(r"Neuron Driver Started with Version:\s*([0-9][0-9.]*[0-9])")


def read(path, root="/"):
    """Return a file's text without surrounding space, or None where it cannot be read."""
    try:
        with open(below(root, path), encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return None


def below(root, path):
    return os.path.join(root, path.lstrip("/"))


def kernel(release, root="/", run=None):
    """Return the running kernel and the one that the next boot brings up, as far as the boot loader says it."""
    images = [os.path.basename(path)[len("vmlinuz-") :] for path in glob.glob(below(root, "boot/vmlinuz-*"))]
    images = [
        image
        for image in images
        if os.path.isdir(below(root, "lib/modules/" + image))
        and "rescue" not in image
        and forms.known("kernel release", image)
    ]
    images.sort(key=versions.numbers)
    following, unknown = release, None
    # In a container, or after an image was removed, the running kernel is not among the installed ones.
    if release in images and len(images) > 1:
        following = boot.next_kernel(run or _no_program, images, root)
        if following is None and boot.is_configured(root):
            following, unknown = release, "the boot loader is not set to one of {0}".format(", ".join(images))
        following = following or images[-1]
    return {
        "release": release,
        "headers": _has_headers(release, root),
        "newest": following,
        "newest_headers": _has_headers(following, root),
        "next_unknown": unknown,
        "compiler": _missing_compiler(root),
    }


def _missing_compiler(root):
    """Return which gcc the running kernel was built with, where its modules need that one and it is missing."""
    built = re.search(r"gcc-(\d{1,2})\b", read("proc/version", root) or "")
    if not built or os.path.exists(below(root, "usr/bin/" + built.group(0))):
        return None
    return built.group(0)


def _no_program(_command):
    return 127, "", ""


def _has_headers(release, root):
    return os.path.exists(below(root, "lib/modules/{0}/build/Makefile".format(release)))


def hardware(root="/"):
    """Return the Neuron devices on the PCI bus, which needs no driver."""
    devices = []
    for path in sorted(glob.glob(below(root, "sys/bus/pci/devices/*"))):
        device = read("device", path)
        if read("vendor", path) == VENDOR and device in FAMILIES:
            devices.append({"address": os.path.basename(path), "family": FAMILIES[device], "device_id": device[2:]})
    return {"present": bool(devices), "devices": devices}


def packages(run, root="/"):
    """Return the aws-neuron* packages that the system's package manager knows, by name.

    Which one is asked follows from the system: dpkg may be installed beside rpm, and then knows of nothing.
    """
    if _uses_rpm(root):
        return _rpm_packages(run)
    status, output, _error = run(["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Status}\n", "aws-neuron*"])
    if status == 127:
        return _rpm_packages(run)
    found = {}
    for line in output.splitlines():
        parts = line.split("\t")
        states = parts[2].split(" ") if len(parts) == 3 else []
        if len(states) == 3:
            wish, _problem, condition = states
            if condition not in ("not-installed", "config-files") and _is_package(parts[0], parts[1]):
                found[parts[0]] = {"version": parts[1], "held": wish == "hold", "state": condition}
    return found


def _rpm_packages(run):
    status, output, _error = run(["rpm", "-qa", "--qf", "%{NAME}\t%{VERSION}\n", "aws-neuron*"])
    parts = [line.split("\t") for line in output.splitlines()] if status == 0 else []
    return {
        line[0]: {"version": line[1], "held": False, "state": "installed"}
        for line in parts
        if len(line) == 2 and line[1] and _is_package(line[0], line[1])
    }


def _is_package(name, version):
    """Say whether these are a package's name and version; one that is half installed may have no version."""
    return bool(forms.known("system package", name) and (not version or forms.known("package version", version)))


def _uses_rpm(root):
    """Say whether the system is one of rpm's, by what it says of itself."""
    said = re.findall(r"(?m)^ID(?:_LIKE)?=(.*)$", read("etc/os-release", root) or "")
    names = set(re.findall(r"[a-z0-9._-]+", " ".join(said).lower()))
    return bool(names & {"amzn", "fedora", "rhel", "centos"}) and not names & {"debian", "ubuntu"}


# In these states of any package apt refuses to work; dpkg --audit also names faults that keep nobody from working.
_HALF_DONE = ("half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")


def dpkg_interrupted(run, root="/"):
    """Tell whether an earlier run of dpkg was cut off, in which state apt refuses to work."""
    if any(name.isdigit() for name in _listed(below(root, "var/lib/dpkg/updates"))):
        return True
    status, output, _error = run(["dpkg-query", "-W", "-f", "${db:Status-Status}\n"])
    return status == 0 and bool(set(output.split()) & set(_HALF_DONE))


def driver(run, known, running, newest, root="/"):
    """Return which driver is installed, built for which kernel, loaded, and used by whom.

    known: the packages; running, newest: kernel releases.
    """
    # The module says its version without the hash of the build that a package may carry.
    package = re.split(r"[-_]", known.get(DRIVER_PACKAGE, {}).get("version") or "")[0] or None
    built = _module_version(run, running, root)
    installed = package or built
    loaded = _loaded(run, root)
    references = read("sys/module/neuron/refcnt", root)
    return {
        "installed": installed,
        "built_for_kernel": installed is not None and built == installed,
        "built_for_newest": installed is not None
        and (built if newest == running else _module_version(run, newest, root)) == installed,
        "loaded": loaded,
        "references": int(references) if references and references.isdigit() else 0,
        "in_use_by": _users(root) if loaded else [],
        "not_at_boot": _kept_from_boot(root),
    }


def _kept_from_boot(root):
    """Say what keeps the driver from being loaded at boot, as sentences."""
    found = []
    for pattern in (
        "etc/modprobe.d/*.conf",
        "run/modprobe.d/*.conf",
        "usr/lib/modprobe.d/*.conf",
        "lib/modprobe.d/*.conf",
    ):
        for path in sorted(glob.glob(below(root, pattern))):
            name = "/" + os.path.relpath(path, root)
            if re.search(
                r"(?m)^[ \t]*(blacklist[ \t]+neuron|install[ \t]+neuron[ \t]+\S*/(?:false|true))[ \t]*$",
                read(name, root) or "",
            ):
                found.append("{0} keeps the module neuron away".format(name))
    return found


def _module_version(run, release, root):
    """Return the version of the module that modprobe takes for a kernel, or None where there is none.

    A second file of that name may lie beside it; which one is taken depmod has decided, and modinfo knows.
    """
    files = [
        os.path.join(folder, name)
        for folder, _folders, names in os.walk(below(root, "lib/modules/" + release))
        for name in names
        if re.match(r"neuron\.ko(\.(xz|zst|gz))?$", name)
    ]
    # Without depmod's index, as in a container, the file says it; modprobe takes updates/ first.
    questions = [["-k", release, "-F", "version", "neuron"]] + [
        ["-F", "version", path] for path in sorted(files, key=lambda path: ("/updates/" not in path, path))[:1]
    ]
    for question in questions if files else []:
        try:
            status, output, _error = run(["modinfo"] + question)
        except OSError:
            continue
        if status == 0 and output.strip():
            return forms.known("package version", output.strip().splitlines()[0])
    return None


def _loaded(run, root):
    """Return the version of the module in the kernel; "unknown" where it is loaded and does not say."""
    if not os.path.isdir(below(root, "sys/module/neuron")):
        return None
    version = forms.known("package version", read("sys/module/neuron/version", root))
    if version:
        return version
    for command in (["dmesg"], ["journalctl", "--dmesg", "--boot", "--no-pager", "--quiet", "--output=cat"]):
        status, output, _error = run(command)
        started = _STARTED.findall(output) if status == 0 else []
        if started:
            return started[-1]
    return "unknown"


def _users(root):
    """Return the processes that have a Neuron device open; those of other users are seen by root only."""
    users = []
    for folder in glob.glob(below(root, "proc/[0-9]*")):
        for descriptor in _listed(os.path.join(folder, "fd")):
            try:
                target = os.readlink(os.path.join(folder, "fd", descriptor))
            except OSError:
                continue
            if re.match(r"/dev/neuron\d", target):
                # The name alone: a command line can hold secrets.
                users.append({"pid": int(os.path.basename(folder)), "command": read("comm", folder) or "?"})
                break
    return sorted(users, key=lambda user: user["pid"])


def devices(run, expected, root="/"):
    """Return what neuron-ls says. Where devices are expected it gets a second try: older ones fail side by side."""
    path = os.path.join(TOOLS, "neuron-ls")
    answer = {"path": None, "rc": None, "devices": [], "cores": 0, "error": None}
    if not os.access(below(root, path), os.X_OK):
        return answer
    for _attempt in range(2 if expected else 1):
        status, output, error = run(["timeout", "60", path, "-j"])
        answer.update(path=path, rc=status, error=None)
        try:
            if status == 0:
                answer["devices"] = neuron_ls.parse(output)
                break
            answer["error"] = "neuron-ls did not answer in 60 seconds" if status == 124 else _last_words(error)
        except ValueError as failure:
            answer["error"] = str(failure)
    answer["cores"] = sum(device["cores"] for device in answer["devices"])
    return answer


def _last_words(error):
    lines = error.strip().splitlines()
    return lines[-1] if lines else "neuron-ls failed and said nothing"


_PROPERTIES = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "MainPID",
    "NeedDaemonReload",
    "FragmentPath",
    "DropInPaths",
]


def services(run, names, root="/"):
    """Return the state of systemd units, and the files their main processes really run."""
    found = []
    for name in names:
        status, output, _error = run(["systemctl", "show", "--property=" + ",".join(_PROPERTIES), "--", name])
        state = dict(line.split("=", 1) for line in output.splitlines() if "=" in line) if status == 0 else {}
        pid = int(state["MainPID"]) if re.match(r"[0-9]{1,9}\Z", state.get("MainPID") or "") else 0
        found.append(
            {
                "name": name,
                "load_state": state.get("LoadState") or "not-found",
                "active_state": state.get("ActiveState") or "inactive",
                "sub_state": state.get("SubState") or "dead",
                "enabled": state.get("UnitFileState") in ("enabled", "enabled-runtime", "static", "generated"),
                "main_pid": pid or None,
                "executable_real_path": _executable(pid, root) if pid else None,
                "configuration": _configuration(pid, root) if pid else None,
                "needs_reload": state.get("NeedDaemonReload") == "yes",
                "ours": _ours(state.get("FragmentPath"), root),
                "drop_ins": activations.drop_ins(state.get("DropInPaths") or "", root),
            }
        )
    return found


def _ours(path, root):
    """Say whether the file of a unit is one of role vllm_server, or None where there is none."""
    text = read(path, root) if path and path.startswith("/") else None
    return None if text is None else activations.is_ours(text)


def links(paths, root="/"):
    """Return what is at paths that may be links to a release: {path: {kind, target}}."""
    return {path: _link(below(root, path), path) for path in paths}


def _link(real, path):
    if os.path.islink(real):
        target = os.path.join(os.path.dirname(path), os.readlink(real))
        return {"kind": "link", "target": forms.known("absolute path", target)}
    kind = "folder" if os.path.isdir(real) else "file" if os.path.exists(real) else "absent"
    return {"kind": kind, "target": None}


def _executable(pid, root):
    """Return the real path of what a process runs; for Python, the interpreter of the environment it runs from.

    A virtual environment's interpreter is a link to the system's, and the path it was started by may lead elsewhere
    since. The libraries that the process has mapped cannot: they name the environment it really started from.
    """
    folder = below(root, "proc/{0}".format(pid))
    arguments = (read("cmdline", folder) or "").split("\0")
    for line in (read("maps", folder) or "").splitlines():
        mapped = re.search(r" (/.+)/lib(?:64)?/python[\d.]+/site-packages/", line)
        if mapped:
            # A process sets its own arguments.
            return forms.known("absolute path", os.path.join(mapped.group(1), "bin", os.path.basename(arguments[0])))
    try:
        return forms.known("absolute path", os.readlink(os.path.join(folder, "exe")))
    except OSError:
        return None


def _configuration(pid, root):
    """Return the hash of the configuration that a process was started with, from its own environment."""
    for variable in (read("environ", below(root, "proc/{0}".format(pid))) or "").split("\0"):
        name, _separator, value = variable.partition("=")
        if name == "NEURONOPS_CONFIGURATION":
            return forms.known("hash", value)
    return None


def sha256(path, root="/"):
    """Return the SHA-256 of a file's content, or None where it cannot be read."""
    return files.sha256(below(root, path))


def free_bytes(path, root="/"):
    """Return how many bytes root may still write where `path` is or will be, or None where that is not known."""
    there = below(root, path)
    while not os.path.exists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    try:
        status = os.statvfs(there)
    except OSError:
        return None
    return status.f_bfree * status.f_frsize


def record(root="/"):
    """Return what role neuron_driver wrote down of its own work, or None where that is not to be understood."""
    try:
        return record_of(json.loads(read(RECORD, root) or "null"))
    except (ValueError, RecursionError):
        return None


def record_of(value, what="the record"):
    """Return what role neuron_driver writes down, made of what was understood; raises forms.FormError."""
    if value is None:
        return None
    found = forms.fields(value, ("packages", "stack"), what)
    return {
        "packages": [
            forms.form("system package", name, what + ".packages")
            for name in forms.sequence(found["packages"], what + ".packages", 10000)
        ],
        "stack": forms.form("line of text", found["stack"], what + ".stack"),
    }


def _listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []
