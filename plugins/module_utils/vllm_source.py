# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Get the sources of vLLM or of its plugin, of one commit and unchanged, from git, a bundle or an archive."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from urllib.parse import urlsplit

from ansible_collections.neuronops.vllm.plugins.module_utils import addresses, process
from ansible_collections.neuronops.vllm.plugins.module_utils.files import sha256
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import FormError, form, one_of, shortened

# What wheels are built of: the entries of a stack with sources, and the option of the role that says where those are.
OPTIONS = {"vllm": "vllm_source", "plugin": "vllm_plugin_source"}
VLLM = "https://github.com/vllm-project/vllm.git"
ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar", ".zip")
SCHEMES = ("https", "http", "ssh", "git+ssh", "git", "file")
# git over SSH without a scheme: user@host:path
SHORT_SSH = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^:\s-][^\s]*\Z")
# A transfer slower than this many bytes a second for a minute is given up.
SLOW = 1000
# More than any vLLM has, and no disk is filled by an archive that says so.
MOST_MEMBERS = 100000
MOST_BYTES = 2 << 30
# One line of a git server's list of refs; vLLM's has some ten thousand.
MOST_REFS = 1000000


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


def shown(source):
    """Return a source without the secrets that may be in it."""
    return source if is_local(source) else addresses.shown(source)


def described(stack, of="vllm"):
    """Return what a stack says of the wheel of vLLM or of its plugin, with the same fields for both.

    title: its name in messages; source: where its sources are by default; packages: what must be in the environment
    that it is built in.
    """
    of = one_of(of, OPTIONS, "of")
    if of == "plugin" and not ("plugin" in stack and "source" in stack["plugin"]):
        raise FormError("the stack has no plugin that is built from sources")
    entry = stack[of]
    common = dict(
        of=of,
        version=entry["version"],
        ref=entry["ref"],
        commit=entry["commit"],
        build_requirements=entry["build_requirements"],
        # A plugin has none of these, nor has a vLLM that is built for no device some.
        build_environment=entry.get("build_environment") or {},
        packages_without_init=entry.get("packages_without_init") or [],
        needs_neuron_ls=bool(entry.get("needs_neuron_ls")),
    )
    if of == "plugin":
        name = form("package name", entry["name"], "plugin.name of the stack")
        return dict(common, name=name, title=name, suffix="", source=entry["source"], files=["setup.py"], packages=[])
    # setup.py imports torch whatever it builds for, and asks the compiler for its version where that is in the suffix.
    packages = ["torch"] if entry["suffix"] == "empty" else ["neuronx-cc", "torch"]
    files = ["setup.py", entry["requirements_file"]]
    return dict(common, name="vllm", title="vLLM", suffix=entry["suffix"], source=VLLM, files=files, packages=packages)


def check_address(source, of="vllm"):
    """Fail unless the source is a path, a URL of a kind that git knows without running a program, or user@host:path."""
    try:
        form("line of text", source, OPTIONS[of])
        scheme = urlsplit(source).scheme.lower() if "://" in source else ""
        known = scheme in SCHEMES if scheme else is_local(source) or SHORT_SSH.match(source)
        kind(source)
    except ValueError as error:
        raise SourceError("%s is no address: %s" % (OPTIONS[of], error)) from error
    if not known or "::" in source.partition("://")[0]:
        raise SourceError(
            "%s is %s. It should be an absolute path, a URL (%s) or user@host:path."
            % (OPTIONS[of], shortened(shown(source)), ", ".join(name + "://" for name in SCHEMES))
        )


def check_commit(commit, where):
    """Return a commit where it is a whole one; a short one is an abbreviation that others can be made to have."""
    try:
        return form("commit", commit, where)
    except FormError as error:
        raise SourceError(
            "%s. A commit has 40 hexadecimal digits, in lower case; fewer do not name one commit alone. Nothing was "
            "changed." % error
        ) from error


def is_commit(ref):
    """Say whether a ref is the whole id of a commit."""
    return bool(re.match(r"[0-9a-f]{40}\Z", ref))


def wanted_version(wheel, commit):
    """Return (version to give to setuptools-scm, version that the wheel must have) of what described() returned.

    A shallow clone of a branch or commit of vLLM knows no tag, so its version names the commit. A plugin has its
    version in its sources: it is given none, as the comparison would prove nothing then.
    """
    base, suffix = wheel["version"], wheel["suffix"]
    if wheel["of"] == "plugin":
        return None, base
    if wheel["ref"] == "v" + base or not commit:
        return base, "%s+%s" % (base, suffix)
    local = "g" + commit[:9]
    return "%s+%s" % (base, local), "%s+%s.%s" % (base, local, suffix)


def local_folder(source):
    """Return the folder of a git repository on this host, or None."""
    if source.startswith("file://"):
        source = urlsplit(source).path
    return source if is_local(source) and os.path.isdir(source) else None


def git(arguments, cwd, environment=None):
    """Run git and return what it printed; raises SourceError with what it complained about.

    The proxies and certificates of the host's administrator count, which stand in the configuration of the system and
    of root. Nothing else from outside does: no variables for git, no hooks, no templates, no programs as transports.
    """
    command = ["git"]
    for setting in (
        "http.lowSpeedLimit=%d" % SLOW,
        "http.lowSpeedTime=60",
        "advice.detachedHead=false",
        "core.hooksPath=/dev/null",
        "protocol.ext.allow=never",
        "submodule.recurse=false",
        "fetch.recurseSubmodules=false",
        # A signature counts that is made with the given OpenPGP key, and none of another kind or program.
        "gpg.program=gpg",
        "gpg.openpgp.program=gpg",
        "gpg.x509.program=/bin/false",
        "gpg.ssh.allowedSignersFile=/dev/null",
        "gpg.minTrustLevel=undefined",
    ):
        command += ["-c", setting]
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name == "GIT_SSL_CAINFO"
    }
    settings.update(GIT_TERMINAL_PROMPT="0", GIT_NO_REPLACE_OBJECTS="1", LC_ALL="C.UTF-8", **(environment or {}))
    bundle = settings.get("SSL_CERT_FILE")
    if bundle and os.path.isfile(bundle):
        # git has a certificate setting of its own.
        settings.setdefault("GIT_SSL_CAINFO", bundle)
    status, output, errors = process.run(command + arguments, cwd=cwd, env=settings)
    if status != 0:
        raise SourceError(errors.decode(errors="replace").strip()[-4000:] or "git ended with %d" % status)
    return output.decode(errors="replace").strip()


class trusting:  # noqa: N801 - it is used as a function
    """Within it git may read one repository of this host, though another user owns it.

    git takes that setting from no repository and from no command line, as the program that serves a local repository
    is another one; so a file names the repository, and includes what root has configured.
    """

    def __init__(self, source):
        self.folder = local_folder(source)

    def __enter__(self):
        if self.folder is None:
            return {}
        home = os.path.expanduser("~")
        lines = []
        configured = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        for path in (os.path.join(configured, "git", "config"), os.path.join(home, ".gitconfig")):
            lines += ["[include]", "\tpath = %s" % quoted(path)]
        lines.append("[safe]")
        for path in sorted({self.folder, os.path.realpath(self.folder)}):
            path = path.rstrip("/")
            lines += ["\tdirectory = %s" % quoted(path + end) for end in ("", "/.git", ".git")]
        handle, self.file = tempfile.mkstemp(prefix="neuronops-git-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return {"GIT_CONFIG_GLOBAL": self.file}

    def __exit__(self, *_error):
        if self.folder is not None:
            os.unlink(self.file)


def quoted(text):
    """Return a value as git's configuration writes it."""
    return '"%s"' % text.replace("\\", "\\\\").replace('"', '\\"')


def listed(answer):
    """Return {name of a ref: id} out of what a repository listed; what is no ref is left out."""
    refs = {}
    for line in answer.split("\n")[:MOST_REFS]:
        number, _tab, name = line.partition("\t")
        try:
            form("git ref", name[: -len("^{}")] if name.endswith("^{}") else name)
            refs[name] = form("commit", number)
        except FormError:
            continue
    return refs


def checkout(source, ref, commit, folder, locked="", of="vllm"):
    """Bring one commit of a git repository or bundle into the empty folder, without its history; return the commit.

    commit: what it must be, or None; locked: what a tag was the last time, or ""; of: the entry of the stack that the
    commit and the ref stand in.
    """
    check_address(source, of)
    try:
        ref = form("git ref", ref, "%s.ref of the stack" % of)
    except FormError as error:
        raise SourceError("%s. Nothing was changed." % error) from error
    commit = check_commit(commit, "%s.commit of the stack" % of) if commit else None
    locked = check_commit(locked, "the commit of the last build") if locked else ""
    with trusting(source) as environment:
        return _checkout(source, ref, commit, folder, locked, of, environment)


def _checkout(source, ref, commit, folder, locked, of, environment):
    git(["init", "--quiet", "--template="], folder, environment)
    try:
        refs = listed(git(["ls-remote", "--", source], folder, environment))
    except SourceError as error:
        raise SourceError(
            "The git repository %s cannot be read: %s. Nothing was changed. Is the address right, is it reachable from "
            "this host? %s can also name a mirror, a bundle or an archive." % (shown(source), error, OPTIONS[of])
        ) from error
    full = next((name for name in ("refs/tags/" + ref, "refs/heads/" + ref, ref) if name in refs), None)
    if full is None and not is_commit(ref):
        raise SourceError(unknown_ref(source, ref, refs, of))
    if full and full.startswith("refs/tags/"):
        commit = commit or locked
    elif full is None:
        if commit and commit != ref:
            raise SourceError(moved(source, ref, ref, commit, of))
        commit = ref
    # An annotated tag is an object of its own; what it stands for is listed behind it.
    found = refs.get(full + "^{}", refs[full]) if full else None
    if commit and found and found != commit:
        raise SourceError(moved(source, ref, found, commit, of))
    # setuptools-scm asks for a tag by name; a shallow clone has only those that were fetched under theirs.
    wanted = "%s:%s" % (full, full) if full and full.startswith("refs/tags/") else (full or ref)
    fetch = ["fetch", "--quiet", "--no-recurse-submodules"]
    # A bundle is read whole, and git fails when it is asked for less.
    depth = [] if kind(source) == "bundle" else ["--depth", "1"]
    try:
        git(fetch + depth + ["--", source, wanted], folder, environment)
    except SourceError as error:
        if full or is_local(source):
            raise SourceError("%s could not be fetched from %s: %s" % (ref, shown(source), error)) from error
        # Servers may refuse to hand out a commit by its number: take everything, and look for it there.
        git(fetch + ["--", source, "+refs/*:refs/remotes/origin/*"], folder, environment)
    try:
        git(["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD" if full else ref], folder)
    except SourceError as error:
        raise SourceError("%s has no commit %s: %s" % (shown(source), ref, error)) from error
    actual = check_commit(git(["rev-parse", "HEAD"], folder), "what was checked out")
    if commit and actual != commit:
        raise SourceError(moved(source, ref, actual, commit, of))
    return actual


def moved(source, ref, found, commit, of):
    """Say that a ref is not the commit that it must be."""
    return (
        "%s of %s is commit %s, and not %s as the stack or the last build has it: the tag was moved, or this is "
        "another repository. Nothing was changed. If the new commit is right, set neuron_stack_overrides.%s.commit "
        "to it." % (ref, shown(source), found, commit, of)
    )


def unknown_ref(source, ref, refs, of):
    """Say that there is no such tag or branch, and which ones are near."""
    short = [re.sub(r"^refs/(tags|heads)/", "", name) for name in refs if not name.endswith("^{}") and name != "HEAD"]
    near = difflib.get_close_matches(ref, short, n=5, cutoff=0.5)
    return "%s has no tag or branch %r; near it are: %s. Correct %s.ref in neuron_stack_overrides." % (
        shown(source),
        ref,
        ", ".join(near) or "none",
        of,
    )


def verify_signature(folder, ref, key, of="vllm"):
    """Fail unless what is checked out is signed with one of the keys in `key`.

    Of an annotated tag the tag itself has to be signed, and has to be the tag of that name for the commit that is
    checked out: a repository can show any tag object under any name. Of all else the commit has to be signed, which
    says nothing about the name that it was found under.
    """
    if not shutil.which("gpg"):
        raise SourceError("gpg is missing on this host, and the sources' signature cannot be verified without it.")
    with tempfile.TemporaryDirectory(prefix="neuronops-gpg-") as home:
        environment = {"GNUPGHOME": home}
        command = ["gpg", "--batch", "--import"]
        status, _output, errors = process.run(command, stdin=key.encode(), env=dict(os.environ, **environment))
        if status != 0:
            raise SourceError("%s_key is no key that gpg can read: %s" % (OPTIONS[of], errors.decode(errors="replace")))
        try:
            tag = annotated_tag(folder, ref)
            if tag is None:
                git(["verify-commit", "HEAD"], folder, environment)
                return
            fields = ["%(tag)", "%(type)", "%(object)"]
            said = git(["verify-tag", "--format=" + "%0a".join(fields), tag], folder, environment).split("\n")
        except SourceError as error:
            raise SourceError("%s is not signed with the key in %s_key: %s" % (ref, OPTIONS[of], error)) from error
    head = git(["rev-parse", "HEAD"], folder)
    if said != [re.sub(r"^refs/tags/", "", ref), "commit", head]:
        raise SourceError(
            "The signature of %s is that of the tag %s of the %s %s, and commit %s is checked out: the repository "
            "shows another tag under this name. Nothing was changed."
            % ((ref,) + tuple((said + ["", "", ""])[:3]) + (head,))
        )


def annotated_tag(folder, ref):
    """Return the id of the object that an annotated tag is, or None where the ref is no such tag."""
    name = "refs/tags/" + re.sub(r"^refs/tags/", "", ref)
    try:
        found = git(["rev-parse", "--verify", "--quiet", name], folder)
    except SourceError:
        return None
    return found if git(["cat-file", "-t", found], folder) == "tag" else None


def unpack(archive, checksum, folder):
    """Unpack an archive with one folder at its top into the empty folder, after its SHA-256 was compared if given."""
    actual = sha256(archive)
    if actual is None:
        raise SourceError("%s is no file that can be read. Nothing was changed." % archive)
    if checksum and actual != checksum.lower():
        raise SourceError(
            "%s has the SHA-256 %s and not %s: it is another file or was cut off. Nothing was changed."
            % (archive, actual, checksum)
        )
    try:
        if archive.endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                extract_zip_safely(opened, folder)
        else:
            with tarfile.open(archive) as opened:
                extract_safely(opened, folder)
    except BROKEN as error:
        raise SourceError("%s cannot be unpacked: %s" % (archive, error)) from error
    return actual


# What the readers of archives raise when they are given something else: most of it is said nowhere.
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
try:
    import lzma

    BROKEN += (lzma.LZMAError,)
except ImportError:
    # A Python that was built without it cannot open such an archive either, and says so.
    pass


class Unpacked:
    """A folder that members of an archive are written into, each checked at the time when it is written.

    Names and links stay below the folder; there are files, folders and links, and nothing else; owner and rights are
    ours and not those of the archive.
    """

    def __init__(self, folder, names):
        self.folder, self.left, self.members = folder, MOST_BYTES, 0
        tops = {name.strip("/").split("/")[0] for name in names if name.strip("/") not in ("", ".")}
        # The folder that release archives have at their top is left out.
        self.top = tops.pop() if len(tops) == 1 and any("/" in name.strip("/") for name in names) else None
        if self.top == ".":
            self.top = None

    def refuse(self, name, why):
        raise SourceError("%s %s: the archive is not trustworthy. Nothing was installed." % (shortened(name), why))

    def parts(self, name):
        """Return the parts of a member's name, of those that stay within the folder."""
        if not name or name.startswith("/") or re.search(r"[\x00-\x1f\x7f\\]", name):
            self.refuse(name, "would be unpacked outside of its folder or has characters that no source has")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            self.refuse(name, "would be unpacked outside of its folder")
        if self.top is not None and parts[:1] == [self.top]:
            parts = parts[1:]
        return parts

    def place(self, name):
        """Return the path for a member, with the folders on its way, of which none is a link."""
        self.members += 1
        if self.members > MOST_MEMBERS:
            self.refuse(name, "is one of more than %d members" % MOST_MEMBERS)
        path = self.folder
        parts = self.parts(name)
        for part in parts[:-1]:
            path = os.path.join(path, part)
            self.make(path, name)
        return os.path.join(path, parts[-1]) if parts else self.folder

    def make(self, path, name):
        """Make a folder where there is none."""
        if not os.path.lexists(path):
            os.mkdir(path)
            os.chmod(path, 0o755)
        elif not stat.S_ISDIR(os.lstat(path).st_mode):
            self.refuse(name, "goes through a link or a file that the archive has made before")

    def directory(self, name):
        self.make(self.place(name), name)

    def file(self, name, mode, opened):
        """Write a regular file out of an open one."""
        path = self.place(name)
        if os.path.lexists(path):
            self.refuse(name, "is there twice")
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o600), "wb") as target:
            for block in iter(lambda: opened.read(1 << 20), b""):
                self.left -= len(block)
                if self.left < 0:
                    self.refuse(name, "is one of more than %d MB" % (MOST_BYTES // 1000000))
                target.write(block)
            os.fchmod(target.fileno(), 0o755 if mode & 0o100 else 0o644)

    def link(self, name, target):
        """Make a symbolic link that leads to something below the folder.

        `..` may stand at the front alone: there it leaves folders that are no links, as place() has seen.
        """
        path = self.place(name)
        parts = [part for part in target.split("/") if part not in ("", ".")]
        up = len(parts) - len([part for part in parts if part != ".."])
        depth = len([part for part in os.path.relpath(os.path.dirname(path), self.folder).split("/") if part != "."])
        if not parts or target.startswith("/") or ".." in parts[up:] or up > depth or re.search(r"[\x00\\]", target):
            self.refuse(name, "is a link that leads outside of its folder")
        if os.path.lexists(path):
            self.refuse(name, "is there twice")
        os.symlink("/".join(parts), path)

    def copy(self, name, mode, target):
        """Write what is a hard link in the archive as a file of its own."""
        source = os.path.join(self.folder, *self.parts(target))
        walked = self.folder
        for part in self.parts(target):
            walked = os.path.join(walked, part)
            if not os.path.lexists(walked) or stat.S_ISLNK(os.lstat(walked).st_mode):
                self.refuse(name, "is a link to nothing that the archive has made before, or outside of its folder")
        if not os.path.isfile(source):
            self.refuse(name, "is a hard link to something that is no file")
        with open(source, "rb") as opened:
            self.file(name, mode, opened)


def extract_safely(archive, folder):
    """Unpack a tar archive that is open."""
    members = archive.getmembers()
    into = Unpacked(folder, [member.name for member in members])
    for member in members:
        if member.isdir():
            into.directory(member.name)
        elif member.issym():
            into.link(member.name, member.linkname)
        elif member.islnk():
            into.copy(member.name, member.mode, member.linkname)
        elif member.isreg():
            opened = archive.extractfile(member)
            if opened is None:
                into.refuse(member.name, "has no content")
            into.file(member.name, member.mode, opened)
        else:
            into.refuse(member.name, "is a device or something else that is no file")


def extract_zip_safely(archive, folder):
    """Unpack a zip archive that is open."""
    members = archive.infolist()
    into = Unpacked(folder, [member.filename for member in members])
    for member in members:
        # What Unix says about the file, where the archive was made on it.
        mode = member.external_attr >> 16
        # Python cuts a name at a NUL and turns the other system's separators; both are seen in the name as it was.
        name = getattr(member, "orig_filename", member.filename)
        if member.flag_bits & 1:
            into.refuse(name, "is encrypted")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            into.refuse(name, "is a device or something else that is no file")
        if stat.S_ISDIR(mode) or name.endswith("/"):
            into.directory(name)
        elif stat.S_ISLNK(mode):
            with archive.open(member) as opened:
                into.link(name, opened.read(4096).decode("utf-8"))
        else:
            with archive.open(member) as opened:
                into.file(name, mode or 0o644, opened)
