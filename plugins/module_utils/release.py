# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment says of itself: a record of each of its layers, and of the release that they are together.

<environment>/neuronops/<layer>.json   written by the role of that layer as its last act; without it nothing counts
<environment>/neuronops/release.json   written when all layers are complete; it has to agree with their records

This is the one reader and the one writer of both. Everybody may read them, so no secret is in them.
"""

from __future__ import annotations

import glob
import json
import os
import stat
import time

from ansible_collections.neuronops.vllm.plugins.module_utils import addresses, forms
from ansible_collections.neuronops.vllm.plugins.module_utils.files import content, sha256, shown, write_at_once

FOLDER = "neuronops"
RELEASE = "release"
SCHEMA = 1
MODE = 0o644

# What the record of a layer is made of: the keys that it must have, and those that it may.
REQUIRED = ("name", "inputs", "stack", "packages")
TEXTS = {
    "inputs": "SHA-256",
    "stack": "line of text",
    "lock_sha256": "SHA-256",
    "python": "absolute path",
    "sdk": "line of text",
    "version": "version",
    "source": "line of text",
    "wheel_sha256": "SHA-256",
    "plugin_version": "version",
    "plugin_source": "line of text",
    "plugin_wheel_sha256": "SHA-256",
}
# Sources from an archive have none.
COMMITS = ("commit", "plugin_commit")
LISTS = {"proof": "line of text", "imported": "line of text"}
KEYS = tuple(sorted(set(TEXTS) | set(LISTS) | set(COMMITS) | {"name", "packages", "files"}))
# What release.json repeats of each layer.
OF_A_LAYER = ("inputs", "lock_sha256", "packages", "files", "proof")
OF_A_RELEASE = ("schema", "id", "stack", "layers", "completed_at")


def path_of(environment, name):
    """Return the file of a layer's record, or with RELEASE that of the release."""
    return os.path.join(environment, FOLDER, name + ".json")


def observe(path):
    """Return what an environment says of itself.

    manifests ({layer: record}), changed_files (list: files of a record that are gone or differ from it),
    release (what summary() returns, or None), ignored (list: a sentence about each file that counts as none).
    """
    records, changed, ignored = observe_manifests(path)
    release, problem = observe_release(path, records)
    return {
        "manifests": records,
        "changed_files": changed,
        "release": release and summary(release),
        "ignored": ignored + ([problem] if problem else []),
    }


def observe_manifests(path):
    """Return ({role: manifest}, [files that differ from what a manifest says], [what was not understood])."""
    manifests, changed, ignored = {}, [], []
    for name in sorted(glob.glob(os.path.join(glob.escape(path), FOLDER, "*.json"))):
        role = os.path.basename(name)[: -len(".json")]
        if role == RELEASE:
            continue
        try:
            manifest = manifest_of(json.loads(content(name)), forms.form("file name", role, "the manifest's name"))
        except (OSError, ValueError, RecursionError) as error:
            # Cut off while it was written, or not ours: as good as none.
            ignored.append("%s counts as none, and what it is about is done again: %s" % (shown(name), error))
            continue
        manifests[role] = manifest
        changed += [file for file, digest in sorted(manifest.get("files", {}).items()) if sha256(file) != digest]
    return manifests, changed, ignored


def file_name(value, what):
    """Return the path of a file that a manifest may name; raises forms.FormError."""
    if not forms.form("line of text", value, what).startswith("/"):
        raise forms.FormError("%s names %s, which is no path" % (what, forms.shortened(value)))
    return str(value)


def manifest_of(value, role):
    """Return what a role wrote about an environment, made of what was understood; raises forms.FormError."""
    found = forms.mapping(value, "the manifest of %s" % role, 100)
    # Those of older versions have none.
    known_schema(found.get("schema", SCHEMA), "the manifest of %s" % role)
    manifest = {}
    for name, value in found.items():
        what = "%s of the manifest of %s" % (forms.form("file name", name, "a key"), role)
        if name in ("packages", "files"):
            entries = forms.mapping(value, what)
            manifest[name] = {}
            for key, text_of_key in entries.items():
                if name == "packages":
                    key = forms.form("package name", key, what)
                    manifest[name][key] = forms.form("installed version", text_of_key, what)
                else:
                    manifest[name][file_name(key, what)] = forms.form("SHA-256", text_of_key, what)
        elif isinstance(value, list):
            manifest[name] = [forms.form("line of text", entry, what) for entry in forms.sequence(value, what, 10000)]
        elif value is None or isinstance(value, bool):
            manifest[name] = value
        elif isinstance(value, int):
            manifest[name] = forms.number(value, what)
        else:
            manifest[name] = forms.form("line of text", value, what)
    if any(isinstance(manifest.get(name, ""), (list, bool, int)) for name in ("role", "inputs", "stack")):
        raise forms.FormError("the manifest of %s has no texts where they are due" % role)
    return manifest


def known_schema(value, what):
    """Return the number of the schema; raises forms.FormError where it is none that this version understands."""
    if isinstance(value, bool) or value != SCHEMA:
        raise forms.FormError(
            "%s has the schema %s, and this version of the collection understands %d"
            % (what, forms.shortened(value), SCHEMA)
        )
    return SCHEMA


def observe_release(path, records):
    """Return (the release as it was recorded, None), or None with a sentence on why it counts as none.

    records: those of the layers. Without a file there is neither a release nor a sentence.
    """
    name = path_of(path, RELEASE)
    if not os.path.lexists(name):
        return None, None
    try:
        return release_of(json.loads(content(name)), records), None
    except (OSError, ValueError, RecursionError) as error:
        return None, "%s counts as none, and the release as not complete: %s" % (shown(name), error)


def release_of(value, records):
    """Return a release that agrees with the records of its layers; raises forms.FormError."""
    what = "the release"
    known_schema(forms.mapping(value, what, 100).get("schema"), what)
    found = forms.fields(value, OF_A_RELEASE, what)
    stack = forms.mapping(found["stack"], "the stack of the release", 1000)
    forms.form("line of text", stack.get("name"), "the name of its stack")
    layers = layers_of(records)
    if found["layers"] != layers:
        recorded = {}
        for layer in forms.sequence(found["layers"], "the layers of the release", 100):
            layer = forms.mapping(layer, "a layer of the release", 100)
            recorded[forms.form("file name", layer.get("name"), "a layer's name")] = layer
        there = {layer["name"]: layer for layer in layers}
        differ = sorted(name for name in set(recorded) | set(there) if recorded.get(name) != there.get(name))
        raise forms.FormError(
            "what is recorded of %s is not what the release was completed with" % (", ".join(differ) or "its layers")
        )
    return {
        "schema": SCHEMA,
        "id": forms.form("file name", found["id"], "the id of the release"),
        "stack": stack,
        "layers": layers,
        "completed_at": forms.form("time", found["completed_at"], "completed_at of the release"),
    }


def summary(release):
    """Return what of a release is told: its stack and its layers by their names."""
    return {
        "schema": release["schema"],
        "id": release["id"],
        "stack": str(release["stack"]["name"]),
        "completed_at": release["completed_at"],
        "layers": [layer["name"] for layer in release["layers"]],
    }


def layers_of(records):
    """Return what a release repeats of the records of its layers, in the order of their names."""
    empty = {"packages": {}, "files": {}, "proof": []}
    return [
        dict({"name": name}, **{key: record.get(key, empty.get(key)) for key in OF_A_LAYER})
        for name, record in sorted(records.items())
    ]


def new_record(layer):
    """Return the record of a layer as it is written: known keys, each in its form; raises forms.FormError."""
    given = {key: value for key, value in layer.items() if value is not None}
    unknown = sorted(set(given) - set(KEYS))
    missing = [key for key in REQUIRED if key not in given]
    if unknown or missing:
        raise forms.FormError(
            "layer %s" % ("lacks %s" % ", ".join(missing) if missing else "has the unknown key %s" % unknown[0])
        )
    name = forms.form("file name", given["name"], "name of the layer")
    if name == RELEASE:
        raise forms.FormError("name of the layer is %s, and that is the name of the release's own file" % RELEASE)
    record = {"schema": SCHEMA, "role": name}
    for key, kind in TEXTS.items():
        if key in given:
            record[key] = forms.form(kind, given[key], "%s of layer %s" % (key, name))
    for key, kind in LISTS.items():
        if key in given:
            what = "%s of layer %s" % (key, name)
            record[key] = [forms.form(kind, entry, what) for entry in forms.sequence(given[key], what, 10000)]
    for key in COMMITS:
        if key in given:
            record[key] = given[key] and forms.form("commit", given[key], "%s of layer %s" % (key, name))
    for key in ("source", "plugin_source"):
        if addresses.has_credentials(record.get(key, "")):
            raise forms.FormError(
                "%s of layer %s holds a user or a password, and everybody may read the record" % (key, name)
            )
    return manifest_of(dict(record, packages=given["packages"], files=given.get("files") or {}), name)


def new_release(identity, stack, records, completed_at):
    """Return a release as it is written; raises forms.FormError."""
    return release_of(
        {
            "schema": SCHEMA,
            "id": identity,
            "stack": stack,
            "layers": layers_of(records),
            "completed_at": completed_at,
        },
        records,
    )


def now():
    """Return the time as a release has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def same_but_for_the_time(one, other):
    """Say whether two releases are the same, whenever they were completed."""
    return one is not None and dict(one, completed_at="") == dict(other, completed_at="")


def as_text(value):
    """Return a record or a release as it is written."""
    return json.dumps(value, indent=4, sort_keys=True) + "\n"


def is_written(path, text):
    """Say whether a file is as write_at_once() would leave it."""
    try:
        return content(path) == text and stat.S_IMODE(os.stat(path).st_mode) == MODE
    except (OSError, ValueError):
        return False


def put(path, text):
    """Write a file of an environment's folder of records, which is made where there is none; raises OSError."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.mkdir(folder)
        os.chmod(folder, 0o755)
    write_at_once(path, text, MODE)
