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
import io
import os
import re
import stat

from ansible_collections.neuronops.vllm.plugins.module_utils import forms, process, release
from ansible_collections.neuronops.vllm.plugins.module_utils.files import LARGEST, content, shown

# Where each role leaves what it knows about the environment, as its last act.
MANIFESTS = release.FOLDER


def normalised(name):
    """Return the name of a package as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def observe(path):
    """Return what is at `path` (a virtual environment or a link to one).

    path, real_path (str), exists (bool), python (dict), packages ({name: version}), damaged ({name: what is wrong}),
    manifests ({role: dict}), changed_files (list: files named in a manifest that are gone or differ from it),
    release (dict or None: what says that the environment is complete as a release), ignored (list: a sentence about
    each manifest, and a release, that was not understood and counts as none).
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
        "release": None,
        "ignored": [],
    }
    if result["exists"]:
        result["python"] = observe_python(path)
        result["packages"], result["damaged"] = observe_packages(path)
        result.update(release.observe(path))
    return result


def faults(path, roles=()):
    """Say what of the packages that were recorded is missing or damaged, as sentences.

    roles: whose records have to be there and to be understood.
    """
    found = observe(path)
    wrong = list(found["ignored"])
    wrong += ["the record of role %s is not understood" % role for role in roles if role not in found["manifests"]]
    wrong += ["%s differs from what was recorded" % name for name in found["changed_files"] if name.startswith(path)]
    for manifest in found["manifests"].values():
        for name, version in sorted(manifest.get("packages", {}).items()):
            if name in found["damaged"]:
                wrong.append("%s is damaged: %s" % (name, found["damaged"][name]))
            elif found["release"] and found["packages"].get(name) != version:
                wrong.append("%s is %s in place of %s" % (name, found["packages"].get(name, "missing"), version))
    return wrong


def observe_python(path):
    """Run the environment's interpreter: executable (str), version (str), works (bool), problem (str or None)."""
    command = os.path.join(path, "bin", "python")
    found = {"executable": os.path.realpath(command), "version": None, "works": False, "problem": None}
    try:
        version, prefix = version_and_prefix(command)
    except (OSError, ValueError) as error:
        found["problem"] = "%s does not run: %s" % (command, error)
        return found
    found["version"] = version
    if os.path.realpath(prefix) != os.path.realpath(path):
        found["problem"] = "%s belongs to %s, not to this environment" % (command, prefix)
    elif not os.path.isdir(os.path.join(path, "lib", "python" + version.rpartition(".")[0], "site-packages")):
        found["problem"] = "%s is now Python %s, and the packages are installed for another" % (command, version)
    else:
        found["works"] = True
    return found


def version_and_prefix(python):
    """Return what an interpreter says its version and its environment are.

    Raises OSError when it does not run, and process.NoAnswerError when its answer is not understood.
    """
    answer = process.ask_python(python, "['%d.%d.%d' % sys.version_info[:3], sys.prefix]")
    if (
        not isinstance(answer, list)
        or [type(part) for part in answer] != [str, str]
        or not re.match(r"3\.[0-9]{1,3}\.[0-9]{1,4}\Z", answer[0])
    ):
        raise process.NoAnswerError("it answered %s" % forms.shortened(answer))
    return answer[0], answer[1]


def site_packages(path):
    """Return the folders of the environment that packages are installed in."""
    return sorted(glob.glob(os.path.join(glob.escape(path), "lib", "python3.*", "site-packages")))


def observe_packages(path):
    """Return ({name: version}, {name: what is wrong with it}) for the packages installed in the environment."""
    packages, damaged = {}, {}
    for folder in site_packages(path):
        try:
            entries = sorted(os.listdir(folder))
        except OSError as error:
            damaged[os.path.basename(folder)] = "%s cannot be read: %s" % (folder, error.strerror)
            continue
        for entry in entries:
            if entry.startswith("~"):
                # What pip renames away while it replaces a package, and leaves behind when it is killed.
                damaged[shown(entry)] = "left behind by an interrupted installation"
            if not entry.endswith(".dist-info"):
                continue
            name, dash, version = entry[: -len(".dist-info")].rpartition("-")
            if not dash:
                continue
            if not forms.known("package name", name) or not forms.known("installed version", version):
                damaged[shown(entry)] = "it is named as no package is"
                continue
            name = normalised(name)
            problem = record_problem(folder, entry)
            if name in packages:
                problem = "installed twice: %s and %s" % (packages[name], version)
            packages[name] = version
            if problem:
                damaged[name] = problem
    return packages, damaged


def record_problem(folder, dist_info):
    """Say what is missing of an installed package, or None."""
    metadata, record = os.path.join(dist_info, "METADATA"), os.path.join(dist_info, "RECORD")
    try:
        if not os.path.isfile(os.path.join(folder, metadata)):
            return "its METADATA is missing"
        status = os.stat(os.path.join(folder, record))
        if not stat.S_ISREG(status.st_mode):
            return "its RECORD is no file"
    except (OSError, ValueError):
        return "its RECORD is missing"
    try:
        rows, text = recorded(folder, dist_info)
        # METADATA may be of any encoding that authors write; zeros are what a power cut leaves.
        with open(os.path.join(folder, metadata), "rb") as file:
            if b"\0" in file.read(LARGEST):
                return "its METADATA has zeros in it, as after a power cut"
    except OSError as error:
        return "its files cannot be read: %s" % error.strerror
    except (ValueError, csv.Error) as error:
        return "its RECORD cannot be understood: it %s" % error
    if not rows:
        # With METADATA empty too nothing is promised that could be missing.
        return "its RECORD is empty" if os.path.getsize(os.path.join(folder, metadata)) else None
    if text and not text.endswith(("\n", "\r")) and len(rows[-1]) != 3:
        return "its RECORD is cut off"
    return rows_problem(folder, rows)


def recorded(folder, dist_info):
    """Return (rows, text) of a package's RECORD; raises OSError, ValueError or csv.Error."""
    text = content(os.path.join(folder, dist_info, "RECORD"))
    return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row], text


def has_another_package(folder, name, size):
    """Say whether the RECORD of any package names this file with this size.

    Some packages bring the same file, as optimum and optimum-neuron do, and what is there is that of the last of them.
    """
    for entry in sorted(os.listdir(folder)):
        if entry.endswith(".dist-info"):
            try:
                if any(row[0] == name and row[-1] == str(size) for row in recorded(folder, entry)[0]):
                    return True
            except (OSError, ValueError, csv.Error):
                continue  # that package's own damage is told with that package
    return False


def rows_problem(folder, rows):
    """Say which of the files that a RECORD names is missing, cut off or closed to others, or None."""
    environment = os.path.realpath(os.path.join(folder, "..", "..", ".."))
    closed = {}
    for row in rows:
        if len(row) != 3:
            return "its RECORD has a line that is not understood: %s" % forms.shortened(",".join(row))
        name, _digest, size = row
        if size and not re.match(r"[0-9]{1,18}\Z", size):
            return "its RECORD says that %s has the size %s" % (shown(name)[:200], forms.shortened(size))
        if not name or "\0" in name:
            return "its RECORD has a line without a file"
        # Files of data and scripts are beside the packages, and nothing of a package is outside of its environment.
        path = os.path.normpath(os.path.join(folder, name))
        parent = os.path.dirname(path)
        if parent not in closed:
            real = os.path.realpath(parent)
            if real != environment and not real.startswith(environment + os.sep):
                return "its RECORD names %s, which is outside of the environment" % forms.shortened(name, 200)
            closed[parent] = not os.path.isdir(parent) or os.stat(parent).st_mode & 0o055 != 0o055
        if name.endswith(".pyc"):
            continue
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return "%s is missing" % shown(name)[:200]
        # pip writes an interpreter's path into scripts and records the size that they had before.
        cut_off = size and int(size) != status.st_size and not name.startswith("..")
        if cut_off and not has_another_package(folder, name, status.st_size):
            return "%s has %d bytes in place of %s" % (shown(name)[:200], status.st_size, size)
        if status.st_mode & 0o044 != 0o044 or closed[parent]:
            return "%s cannot be read by other users" % shown(name)[:200]
    return None
