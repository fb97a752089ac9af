# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Get vLLM's sources, of one commit and unchanged, from git, a bundle or an archive."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from urllib.parse import urlsplit, urlunsplit

from ansible_collections.neuronops.vllm.plugins.module_utils import process

ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar", ".zip")
COMMIT = re.compile(r"^[0-9a-f]{7,40}$")
# A transfer slower than this many bytes a second for a minute is given up.
SLOW = 1000


class SourceError(Exception):
    """Sources that cannot be had or are not the wanted ones; the message says why and what to do."""


def kind(source):
    """Return what a source is: archive, bundle or git."""
    path = urlsplit(source).path
    if path.endswith(ARCHIVES):
        return "archive"
    return "bundle" if path.endswith(".bundle") else "git"


def is_local(source):
    """Say whether a source is a file and not reached over a network."""
    return source.startswith("/")


def shown(url):
    """Return a URL without the password that may be in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


def git(arguments, cwd, environment=None):
    """Run git and return what it printed; raises SourceError with what it complained about."""
    command = [
        "git",
        "-c",
        "http.lowSpeedLimit=%d" % SLOW,
        "-c",
        "http.lowSpeedTime=60",
        "-c",
        "advice.detachedHead=false",
    ]
    settings = dict(os.environ, GIT_TERMINAL_PROMPT="0", LC_ALL="C.UTF-8", **(environment or {}))
    bundle = settings.get("SSL_CERT_FILE")
    if bundle and os.path.isfile(bundle):
        # git has a certificate setting of its own.
        settings.setdefault("GIT_SSL_CAINFO", bundle)
    status, output, errors = process.run(command + arguments, cwd=cwd, env=settings)
    if status != 0:
        raise SourceError(errors.decode(errors="replace").strip() or "git ended with %d" % status)
    return output.decode(errors="replace").strip()


def checkout(source, ref, commit, folder, locked=""):
    """Bring one commit of a git repository or bundle into the empty folder, without its history; return the commit.

    commit: what it must be, or None; locked: what a tag was the last time, or "".
    """
    git(["init", "--quiet"], folder)
    git(["remote", "add", "origin", source], folder)
    try:
        names = [line.split("\t") for line in git(["ls-remote", source], folder).split("\n") if "\t" in line]
    except SourceError as error:
        raise SourceError(
            "The git repository %s cannot be read: %s. Nothing was changed. Is the address right, is it reachable from "
            "this host? vllm_source can also name a mirror, a bundle or an archive." % (shown(source), error)
        ) from error
    refs = {name: number for number, name in names}
    full = next((name for name in ("refs/tags/" + ref, "refs/heads/" + ref, ref) if name in refs), None)
    if full is None and not COMMIT.match(ref):
        raise SourceError(unknown_ref(source, ref, refs))
    if full and full.startswith("refs/tags/"):
        commit = commit or locked
    # An annotated tag is an object of its own; what it stands for is listed behind it.
    found = refs.get(full + "^{}", refs[full]) if full else None
    if commit and found and not found.startswith(commit):
        raise SourceError(moved(source, ref, found, commit))
    # setuptools-scm asks for a tag by name; a shallow clone has only those that were fetched under theirs.
    wanted = "%s:%s" % (full, full) if full and full.startswith("refs/tags/") else (full or ref)
    # A bundle is read whole, and git fails when it is asked for less.
    depth = [] if kind(source) == "bundle" else ["--depth", "1"]
    try:
        git(["fetch", "--quiet"] + depth + ["origin", wanted], folder)
    except SourceError as error:
        if full or is_local(source):
            raise SourceError("%s could not be fetched from %s: %s" % (ref, shown(source), error)) from error
        # Servers may refuse to hand out a commit by its number: take everything, and look for it there.
        git(["fetch", "--quiet", "origin", "+refs/*:refs/remotes/origin/*"], folder)
    try:
        git(["checkout", "--quiet", "--force", "FETCH_HEAD" if full else ref], folder)
    except SourceError as error:
        raise SourceError("%s has no commit %s: %s" % (shown(source), ref, error)) from error
    actual = git(["rev-parse", "HEAD"], folder)
    if commit and not actual.startswith(commit):
        raise SourceError(moved(source, ref, actual, commit))
    return actual


def moved(source, ref, found, commit):
    """Say that a ref is not the commit that it must be."""
    return (
        "%s of %s is commit %s, and not %s as the stack or the last build has it: the tag was moved, or this is "
        "another repository. Nothing was changed. If the new commit is right, set neuron_stack_overrides.vllm.commit "
        "to it." % (ref, shown(source), found, commit)
    )


def unknown_ref(source, ref, refs):
    """Say that there is no such tag or branch, and which ones are near."""
    short = [re.sub(r"^refs/(tags|heads)/", "", name) for name in refs if not name.endswith("^{}") and name != "HEAD"]
    near = difflib.get_close_matches(ref, short, n=5, cutoff=0.5)
    return "%s has no tag or branch %r; near it are: %s. Correct vllm.ref in neuron_stack_overrides." % (
        shown(source),
        ref,
        ", ".join(near) or "none",
    )


def verify_signature(folder, ref, key):
    """Fail unless the tag, or the commit where it is no signed tag, is signed with one of the keys in `key`."""
    if not shutil.which("gpg"):
        raise SourceError("gpg is missing on this host, and the sources' signature cannot be verified without it.")
    with tempfile.TemporaryDirectory(prefix="neuronops-gpg-") as home:
        environment = {"GNUPGHOME": home}
        command = ["gpg", "--batch", "--import"]
        status, _output, errors = process.run(command, stdin=key.encode(), env=dict(os.environ, **environment))
        if status != 0:
            raise SourceError("vllm_source_key is no key that gpg can read: %s" % errors.decode(errors="replace"))
        problems = []
        for arguments in (["verify-tag", ref], ["verify-commit", "HEAD"]):
            try:
                git(arguments, folder, environment)
                return
            except SourceError as error:
                problems.append(str(error))
    raise SourceError("%s is not signed with the key in vllm_source_key: %s" % (ref, "; ".join(problems)))


def unpack(archive, checksum, folder):
    """Unpack an archive with one folder at its top into the empty folder, after its SHA-256 was compared if given."""
    actual = sha256(archive)
    if checksum and actual != checksum.lower():
        raise SourceError(
            "%s has the SHA-256 %s and not %s: it is another file or was cut off. Nothing was changed."
            % (archive, actual, checksum)
        )
    try:
        with tempfile.TemporaryDirectory(dir=folder) as inner:
            if archive.endswith(".zip"):
                with zipfile.ZipFile(archive) as opened:
                    opened.extractall(inner)  # noqa: S202 - zipfile itself keeps members within the folder
            else:
                with tarfile.open(archive) as opened:
                    extract_safely(opened, inner)
            tops = os.listdir(inner)
            top = (
                os.path.join(inner, tops[0])
                if len(tops) == 1 and os.path.isdir(os.path.join(inner, tops[0]))
                else inner
            )
            for name in os.listdir(top):
                shutil.move(os.path.join(top, name), os.path.join(folder, name))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise SourceError("%s cannot be unpacked: %s" % (archive, error)) from error
    return actual


def extract_safely(archive, folder):
    """Refuse members that would land outside of the folder; Python before 3.12 has no filter of its own everywhere."""
    root = os.path.realpath(folder) + os.sep
    for member in archive.getmembers():
        target = os.path.realpath(os.path.join(folder, member.name))
        link = os.path.realpath(os.path.join(os.path.dirname(target), member.linkname)) if member.issym() else target
        if member.islnk():
            link = os.path.realpath(os.path.join(folder, member.linkname))
        if not (target + os.sep).startswith(root) or not (link + os.sep).startswith(root) or member.isdev():
            raise SourceError(
                "%s would be unpacked outside of its folder: the archive is not trustworthy." % member.name
            )
    archive.extractall(folder)  # noqa: S202 - the members were looked at above


def sha256(path):
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
