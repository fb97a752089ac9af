# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe a Python environment from its files: does its interpreter run, what is installed, is any of it damaged?

One process for the interpreter, no pip: what is installed is read from the *.dist-info folders, and a package counts as
damaged when a file of its RECORD is missing or has another size. Content is not hashed: that would read gigabytes.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import re

from ansible_collections.neuronops.vllm.plugins.module_utils import process

# Where each role leaves what it knows about the environment, as its last act.
MANIFESTS = "neuronops"


def normalised(name):
    """Return the name of a package as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def observe(path):
    """Return what is at `path` (a virtual environment or a link to one).

    path, real_path (str), exists (bool), python (dict), packages ({name: version}), damaged ({name: what is wrong}),
    manifests ({role: dict}), changed_files (list: files named in a manifest that are gone or differ from it).
    """
    result = {
        "path": path,
        "real_path": os.path.realpath(path),
        "exists": os.path.lexists(path),
        "python": {"executable": None, "version": None, "works": False, "problem": None},
        "packages": {},
        "damaged": {},
        "manifests": {},
        "changed_files": [],
    }
    if result["exists"]:
        result["python"] = observe_python(path)
        result["packages"], result["damaged"] = observe_packages(path)
        result["manifests"], result["changed_files"] = observe_manifests(path)
    return result


def observe_python(path):
    """Run the environment's interpreter: executable (str), version (str), works (bool), problem (str or None)."""
    command = os.path.join(path, "bin", "python")
    found = {"executable": os.path.realpath(command), "version": None, "works": False, "problem": None}
    code = "import sys; print('%d.%d.%d' % sys.version_info[:3]); print(sys.prefix)"
    try:
        status, output, errors = process.run([command, "-I", "-c", code], timeout=60)
    except OSError as error:
        found["problem"] = "%s does not run: %s" % (command, error)
        return found
    lines = output.decode(errors="replace").split("\n")
    if status != 0 or len(lines) < 2:
        found["problem"] = "%s does not run: %s" % (command, errors.decode(errors="replace").strip()[-500:])
        return found
    found["version"] = lines[0]
    if os.path.realpath(lines[1]) != os.path.realpath(path):
        found["problem"] = "%s belongs to %s, not to this environment" % (command, lines[1])
    elif not os.path.isdir(os.path.join(path, "lib", "python" + lines[0].rpartition(".")[0], "site-packages")):
        found["problem"] = "%s is now Python %s, and the packages are installed for another" % (command, lines[0])
    else:
        found["works"] = True
    return found


def site_packages(path):
    """Return the folders of the environment that packages are installed in."""
    return sorted(glob.glob(os.path.join(glob.escape(path), "lib", "python3.*", "site-packages")))


def observe_packages(path):
    """Return ({name: version}, {name: what is wrong with it}) for the packages installed in the environment."""
    packages, damaged = {}, {}
    for folder in site_packages(path):
        for entry in sorted(os.listdir(folder)):
            if entry.startswith("~"):
                # What pip renames away while it replaces a package, and leaves behind when it is killed.
                damaged[entry] = "left behind by an interrupted installation"
            if not entry.endswith(".dist-info"):
                continue
            name, dash, version = entry[: -len(".dist-info")].rpartition("-")
            name = normalised(name)
            problem = record_problem(folder, entry)
            if not dash:
                continue
            if name in packages:
                problem = "installed twice: %s and %s" % (packages[name], version)
            packages[name] = version
            if problem:
                damaged[name] = problem
    return packages, damaged


def record_problem(folder, dist_info):
    """Say what is missing of an installed package, or None."""
    if not os.path.isfile(os.path.join(folder, dist_info, "METADATA")):
        return "its METADATA is missing"
    try:
        with open(os.path.join(folder, dist_info, "RECORD"), encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except OSError:
        return "its RECORD is missing"
    for row in rows:
        if len(row) != 3 or row[0].endswith(".pyc"):
            continue
        name, _digest, size = row
        try:
            actual = os.stat(os.path.join(folder, name)).st_size
        except OSError:
            return "%s is missing" % name
        # pip writes an interpreter's path into scripts and records the size that they had before.
        if size and int(size) != actual and not name.startswith(".."):
            return "%s has %d bytes in place of %s" % (name, actual, size)
    return None


def observe_manifests(path):
    """Return ({role: manifest}, [files that differ from what a manifest says])."""
    manifests, changed = {}, []
    for name in sorted(glob.glob(os.path.join(glob.escape(path), MANIFESTS, "*.json"))):
        try:
            with open(name, encoding="utf-8") as file:
                manifest = json.load(file)
        except (OSError, ValueError):
            # Cut off while it was written: as good as none.
            continue
        if not isinstance(manifest, dict):
            continue
        manifests[os.path.basename(name)[: -len(".json")]] = manifest
        changed += [file for file, digest in sorted(manifest.get("files", {}).items()) if sha256(file) != digest]
    return manifests, changed


def sha256(path):
    """Return the SHA-256 of a file in hexadecimal, or None when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None
