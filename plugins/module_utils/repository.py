# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a host's set-up of the Neuron package repository with the one that is wanted, without changing anything.

Module neuron_info reports the differences, module neuron_repository removes them.
"""

from __future__ import annotations

import glob
import os
import re
import time

from ansible_collections.neuronops.vllm.plugins.module_utils import openpgp

AWS_HOSTS = ("apt.repos.neuron.amazonaws.com", "yum.repos.neuron.amazonaws.com")
PLACES = {
    "apt": {"keyring": "/etc/apt/keyrings/aws-neuron.gpg", "source": "/etc/apt/sources.list.d/aws-neuron.sources"},
    "dnf": {"keyring": "/etc/pki/rpm-gpg/RPM-GPG-KEY-aws-neuron", "source": "/etc/yum.repos.d/aws-neuron.repo"},
}
DAY = 86400

OPTIONS = {
    "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
    "url": {"type": "str", "required": True},
    "suite": {"type": "str"},
    "components": {"type": "list", "elements": "str", "default": ["main"]},
    "fingerprint": {"type": "str", "required": True, "no_log": False},
    "renew_days": {"type": "int", "default": 30},
}


def fingerprint(text):
    """Return a fingerprint as openpgp.public_keys() gives it, or raise ValueError."""
    plain = re.sub(r"\s", "", text).upper()
    if not re.match(r"^[0-9A-F]{40}$", plain):
        raise ValueError("{0!r} is no fingerprint: it has 40 hexadecimal digits, not a short key id".format(text))
    return plain


def source_text(wanted):
    """Return the file that tells apt or dnf of the repository."""
    keyring = PLACES[wanted["manager"]]["keyring"]
    if wanted["manager"] == "dnf":
        lines = [
            "[aws-neuron]",
            "name=AWS Neuron",
            "baseurl=" + wanted["url"],
            "enabled=1",
            "gpgcheck=1",
            "gpgkey=file://" + keyring,
        ]
    else:
        lines = ["Types: deb", "URIs: " + wanted["url"], "Suites: " + wanted["suite"]]
        # A suite that ends with a slash is a folder without components.
        if not wanted["suite"].endswith("/"):
            lines.append("Components: " + " ".join(wanted["components"]))
        lines += ["Architectures: amd64", "Signed-By: " + keyring]
    return "\n".join(["# Written by role neuronops.vllm.neuron_driver."] + lines) + "\n"


def compare(wanted, root="/", now=None):
    """Return what the host has and how it differs.

    current (bool), reasons (list of sentences), key (fingerprint, expires, expired, expires_soon; None without a key),
    key_needed and source_needed (bool), leftovers ({path: new content as bytes, or None where the file goes}).
    """
    now = time.time() if now is None else now
    place, reasons = PLACES[wanted["manager"]], []
    data = _bytes(root, place["keyring"])
    key, problem = installed_key(data, fingerprint(wanted["fingerprint"]), now, wanted["renew_days"])
    if not problem and data.startswith(b"-----BEGIN") != (wanted["manager"] == "dnf"):
        problem = "the key is armoured, or is not, and {0} reads the other form there".format(wanted["manager"])
    if problem:
        reasons.append("{0}: {1}".format(place["keyring"], problem))
    source_needed = _bytes(root, place["source"]) != source_text(wanted).encode()
    if source_needed:
        reasons.append("{0} is missing or differs".format(place["source"]))
    leftovers = find_leftovers(wanted, root)
    reasons += ["{0} still sets up the repository or its key in another way".format(path) for path in sorted(leftovers)]
    return {
        "current": not reasons,
        "reasons": reasons,
        "key": key,
        "key_needed": bool(problem),
        "source_needed": source_needed,
        "leftovers": leftovers,
    }


def installed_key(data, wanted, now, renew_days):
    """Return (what is known of the key in a file, why it is not good enough or None)."""
    if data is None:
        return None, "there is no key"
    try:
        keys = openpgp.public_keys(data)
    except openpgp.OpenPGPError as error:
        return None, "the key cannot be read: {0}".format(error)
    match = next((key for key in keys if key["fingerprint"] == wanted), None)
    if match is None or len(keys) > 1:
        return None, "it holds the keys {0} and should hold {1} alone".format(
            ", ".join(key["fingerprint"] for key in keys), wanted
        )
    key = describe(match, now, renew_days)
    if key["revoked"]:
        return key, "the key is revoked"
    if key["expired"]:
        return key, "the key expired on {0}".format(key["expires"])
    if key["expires_soon"]:
        return key, "the key expires on {0}".format(key["expires"])
    return key, None


def describe(key, now, renew_days):
    """Return a key as the modules report it."""
    expires = key["expires"]
    return {
        "fingerprint": key["fingerprint"],
        "user_ids": key["user_ids"],
        "expires": time.strftime("%Y-%m-%d", time.gmtime(expires)) if expires else None,
        "expired": bool(expires) and expires <= now,
        "expires_soon": bool(expires) and expires <= now + renew_days * DAY,
        "revoked": key["revoked"],
    }


def find_leftovers(wanted, root="/"):
    """Find what other set-ups left, such as AWS's documented commands with apt-key: {path: new content or None}.

    apt refuses to work when two entries name one repository with different keys, and a key in trusted.gpg may sign for
    every repository.
    """
    urls = AWS_HOSTS + (re.sub(r"^[a-z+]+://", "", wanted["url"]).rstrip("/"),)
    found = {}
    if wanted["manager"] == "dnf":
        for path in _glob(root, "/etc/yum.repos.d/*.repo"):
            _keep_sections(found, root, path, urls)
        found.pop(PLACES["dnf"]["source"], None)
        return found
    for path in ["/etc/apt/sources.list"] + _glob(root, "/etc/apt/sources.list.d/*.list"):
        lines = (_bytes(root, path) or b"").decode("utf-8", "replace").splitlines(True)
        kept = [line for line in lines if not (re.match(r"\s*deb(-src)?\s", line) and _names(line, urls))]
        if kept != lines:
            found[path] = _content(kept)
    for path in _glob(root, "/etc/apt/sources.list.d/*.sources"):
        stanzas = re.split(r"(?<=\n)(?:[ \t]*\n)+", (_bytes(root, path) or b"").decode("utf-8", "replace"))
        kept = [stanza for stanza in stanzas if not _names(_without_comments(stanza), urls)]
        if kept != stanzas and path != PLACES["apt"]["source"]:
            found[path] = _content(["\n".join(kept)] if kept else [])
    for path in ["/etc/apt/trusted.gpg"] + _glob(root, "/etc/apt/trusted.gpg.d/*"):
        try:
            keys = openpgp.public_keys(_bytes(root, path) or b"")
        except openpgp.OpenPGPError:
            continue
        others = [key["packets"] for key in keys if key["fingerprint"] != fingerprint(wanted["fingerprint"])]
        if len(others) < len(keys):
            remaining = b"".join(others)
            found[path] = (openpgp.armor(remaining) if path.endswith(".asc") else remaining) if others else None
    return found


def _keep_sections(found, root, path, urls):
    sections = re.split(r"(?m)^(?=\[)", (_bytes(root, path) or b"").decode("utf-8", "replace"))
    kept = [section for section in sections if not _names(_without_comments(section), urls)]
    if kept != sections:
        found[path] = _content(kept)


def _names(text, urls):
    """Tell whether a text names one of the repositories; another folder of the same server is another repository."""
    return any(re.search(r"://(?:[^\s/@]*@)?" + re.escape(url) + r"/?(?:\s|$)", text) for url in urls)


def _without_comments(text):
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _content(parts):
    """Return what is left of a file, or None when only comments and space are."""
    text = "".join(parts)
    return text.encode() if _without_comments(text).strip() else None


def _glob(root, pattern):
    return sorted("/" + os.path.relpath(path, root) for path in glob.glob(os.path.join(root, pattern.lstrip("/"))))


def _bytes(root, path):
    try:
        with open(os.path.join(root, path.lstrip("/")), "rb") as stream:
            return stream.read()
    except OSError:
        return None
