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

from ansible_collections.neuronops.vllm.plugins.module_utils import addresses, openpgp

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
    """Return the file that tells apt or dnf of the repository; ValueError where a word would say more than one."""
    words = [("url", wanted["url"])]
    if wanted["manager"] == "apt":
        words += [("suite", wanted["suite"])] + [("components", component) for component in wanted["components"]]
    for name, word in words:
        if not re.match(r"^[!-~]+\Z", word):
            raise ValueError("{0} is {1!r}, which is not one word".format(name, word))
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
    key_needed and source_needed (bool), closed (list of files that others than root cannot read), leftovers ({path: new
    content as bytes, or None where the file goes}).
    """
    now = time.time() if now is None else now
    place, reasons = PLACES[wanted["manager"]], []
    data = _bytes(root, place["keyring"])
    key, problem = installed_key(data, wanted, now)
    if problem:
        reasons.append("{0}: {1}".format(place["keyring"], problem))
    source_needed = _bytes(root, place["source"]) != source_text(wanted).encode()
    if source_needed:
        reasons.append("{0} is missing or differs".format(place["source"]))
    shut = {path: closed(root, path) for path in (place["keyring"], place["source"]) if closed(root, path)}
    reasons += [shut[path] for path in sorted(shut)]
    leftovers = find_leftovers(wanted, root)
    reasons += ["{0} still sets up the repository or its key in another way".format(path) for path in sorted(leftovers)]
    return {
        "current": not reasons,
        "reasons": reasons,
        "key": key,
        "key_needed": bool(problem),
        "source_needed": source_needed,
        "leftovers": leftovers,
        "closed": sorted(shut),
    }


def keyring(key, manager):
    """Return a key as it is installed: apt reads packets there, and rpm imports armour."""
    return openpgp.armor(key["packets"]) if manager == "dnf" else key["packets"]


def installed_key(data, wanted, now):
    """Return (what is known of the key in a file, why it is not good enough or None)."""
    expected = fingerprint(wanted["fingerprint"])
    if data is None:
        return None, "there is no key"
    try:
        keys = openpgp.public_keys(data)
    except openpgp.OpenPGPError as error:
        return None, "the key cannot be read: {0}".format(error)
    match = next((key for key in keys if key["fingerprint"] == expected), None)
    if match is None or len(keys) > 1:
        return None, "it holds the keys {0} and should hold {1} alone".format(
            ", ".join(key["fingerprint"] for key in keys), expected
        )
    if data != keyring(match, wanted["manager"]):
        return None, "the key is not in the form that is written here, and there may be more in it for {0}".format(
            wanted["manager"]
        )
    key = describe(match, now, wanted["renew_days"])
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
    found = {}
    if wanted["manager"] == "dnf":
        for path in _glob(root, "/etc/yum.repos.d/*.repo"):
            if path != PLACES["dnf"]["source"]:
                _keep(found, root, path, lambda text: _without_sections(text, wanted))
        return found
    for path in ["/etc/apt/sources.list"] + _glob(root, "/etc/apt/sources.list.d/*.list"):
        _keep(found, root, path, lambda text: _without_lines(text, wanted))
    for path in _glob(root, "/etc/apt/sources.list.d/*.sources"):
        if path != PLACES["apt"]["source"]:
            _keep(found, root, path, lambda text: _without_stanzas(text, wanted))
    for path in ["/etc/apt/trusted.gpg"] + _glob(root, "/etc/apt/trusted.gpg.d/*"):
        try:
            remaining = openpgp.without(_bytes(root, path) or b"", fingerprint(wanted["fingerprint"]))
        except openpgp.OpenPGPError:
            continue
        if remaining is not None:
            found[path] = (openpgp.armor(remaining) if path.endswith(".asc") else remaining) if remaining else None
    return found


def _keep(found, root, path, without):
    """Note what is left of a file without what is ours, where that is another text; other files stay untouched."""
    text = (_bytes(root, path) or b"").decode("utf-8", "surrogateescape")  # comments may be in any encoding
    after = without(text)
    if after != text:
        empty = not any(line.strip() and not line.lstrip().startswith("#") for line in after.splitlines())
        found[path] = None if empty else after.encode("utf-8", "surrogateescape")


def _is_ours(url, suites, wanted):
    """Tell whether a source is the wanted repository: AWS's own by its address, a mirror by address and suite."""
    if _is_aws(url):
        return True
    return _same_place(url, wanted["url"]) and (suites is None or (wanted["suite"] or "").rstrip("/") in suites)


def _is_aws(url):
    return any(_same_place(url, "https://" + host) for host in AWS_HOSTS)


def _same_place(one, other):
    """Compare addresses whatever the scheme: apt and dnf reach one server over http and https."""
    try:
        first, second = addresses.parts(one), addresses.parts(other)
    except ValueError:
        return False
    ports = {first[2], second[2]}
    return first[1] == second[1] and first[3] == second[3] and (len(ports) == 1 or ports <= {80, 443, None})


def _without_lines(text, wanted):
    """Return a file of one-line sources without those that are ours."""
    kept = []
    for line in text.splitlines(True):
        entry = re.match(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", line)
        if not (entry and _is_ours(entry.group(1), [entry.group(2).rstrip("/")], wanted)):
            kept.append(line)
    return "".join(kept)


def _without_stanzas(text, wanted):
    """Return a deb822 file without what is ours: a stanza, or only one of its addresses or suites."""
    parts = re.split(r"((?<=\n)(?:[ \t]*\n)+)", text)
    stanzas, gaps = parts[::2], parts[1::2] + [""]
    kept = []
    for stanza, gap in zip(stanzas, gaps):
        left = _without_source(stanza, wanted)
        if left == [stanza] or not stanza.strip():
            kept.append(stanza + gap)
        elif left:
            kept.append("\n".join(left) + gap)
    result = "".join(kept)
    return text if result == text else result.rstrip("\n") + "\n" if result.strip() else ""


def _without_source(stanza, wanted):
    """Return the stanzas that take the place of one; the same one where nothing in it is ours."""
    urls, suites = _field(stanza, "URIs"), _field(stanza, "Suites")
    if [word.lower() for word in _field(stanza, "Enabled")] in (["no"], ["false"], ["0"], ["off"]):
        return [stanza]
    plain = [suite.rstrip("/") for suite in suites]
    ours = [url for url in urls if _is_ours(url, plain, wanted)]
    if not ours:
        return [stanza]
    left, others = [], [url for url in urls if url not in ours]
    if others:
        left.append(_with_field(stanza, "URIs", others))
    mirrors = [url for url in ours if not _is_aws(url)]
    remaining = [suite for suite in suites if suite.rstrip("/") != (wanted["suite"] or "").rstrip("/")]
    if remaining and mirrors:
        left.append(_with_field(_with_field(stanza, "URIs", mirrors), "Suites", remaining))
    return left


def _lines_of(stanza, name):
    """Return (first line, line after the last) of a field, whose value may go on in lines that begin with a space."""
    lines = stanza.splitlines(True)
    for number, line in enumerate(lines):
        if re.match(name + r"\s*:", line, re.IGNORECASE):
            end = number + 1
            while end < len(lines) and (lines[end][:1] in " \t" or lines[end].startswith("#")):
                end += 1
            return number, end
    return None


def _field(stanza, name):
    """Return the words of a field."""
    place = _lines_of(stanza, name)
    if not place:
        return []
    lines = [line for line in stanza.splitlines(True)[place[0] : place[1]] if not line.startswith("#")]
    return "".join(lines).partition(":")[2].split()


def _with_field(stanza, name, words):
    """Return a stanza with other words in a field."""
    start, end = _lines_of(stanza, name)
    lines = stanza.splitlines(True)
    return "".join(lines[:start] + ["%s: %s\n" % (name, " ".join(words))] + lines[end:])


def _without_sections(text, wanted):
    """Return a file of dnf's repositories without what is ours: a section, or only one of its addresses."""
    kept = []
    for section in re.split(r"(?m)^(?=\[)", text):
        lines = section.splitlines(True)
        enabled = (
            next((line for line in lines if re.match(r"enabled\s*=", line)), "enabled=1").partition("=")[2].strip()
        )
        starts = [number for number, line in enumerate(lines) if re.match(r"baseurl\s*=", line)]
        if not section.startswith("[") or enabled in ("0", "no", "false", "False") or not starts:
            kept.append(section)
            continue
        start, end = starts[0], starts[0] + 1
        while end < len(lines) and lines[end][:1] in (" ", "\t") and lines[end].strip():
            end += 1
        urls = re.split(r"[\s,]+", "".join(lines[start:end]).partition("=")[2].strip())
        others = [url for url in urls if not _is_ours(url, None, wanted)]
        if others == urls:
            kept.append(section)
        elif others:
            kept.append("".join(lines[:start] + ["baseurl=%s\n" % "\n    ".join(others)] + lines[end:]))
    return "".join(kept)


def closed(root, path):
    """Say why others than root cannot read a file of ours, or nothing: apt reads it as the user _apt."""
    full = os.path.join(root, path.lstrip("/"))
    try:
        if os.stat(full).st_mode & 0o044 != 0o044:
            return "{0} cannot be read by everybody".format(path)
        folder = os.path.dirname(full)
        if os.stat(folder).st_mode & 0o055 != 0o055:
            return "{0} is closed to others than root".format(os.path.dirname(path))
    except OSError:
        pass
    return None


def _glob(root, pattern):
    return sorted("/" + os.path.relpath(path, root) for path in glob.glob(os.path.join(root, pattern.lstrip("/"))))


def _bytes(root, path):
    try:
        with open(os.path.join(root, path.lstrip("/")), "rb") as stream:
            return stream.read()
    except OSError:
        return None
