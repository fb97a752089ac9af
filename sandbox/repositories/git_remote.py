# SPDX-License-Identifier: GPL-3.0-or-later
"""A git remote with vLLM's real sources: one commit and tag for each release archive in sdists.json.

The archives are what vLLM published; the history between them is not to be had, so the commits are the sandbox's own,
with fixed authors and dates: the same archives give the same commits everywhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from sandbox.repositories import sdists
from sandbox.repositories.keys import Signer

AUTHOR = "neuronops sandbox"
MAIL = "sandbox@neuronops.invalid"
# The day of the first commit; each next one is a day later.
FIRST_DAY = 1700000000
DAY = 86400
OVERLAYS = Path(__file__).with_name("files") / "vllm"


def git(repository: Path, *arguments: str, work_tree: Path | None = None, day: int = 0, stdin: str = "") -> str:
    """Run git on a bare repository, with nobody's configuration; return what it says."""
    date = f"{FIRST_DAY + DAY * day} +0000"
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_DIR": str(repository),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": AUTHOR,
        "GIT_AUTHOR_EMAIL": MAIL,
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_NAME": AUTHOR,
        "GIT_COMMITTER_EMAIL": MAIL,
        "GIT_COMMITTER_DATE": date,
    }
    if work_tree:
        environment["GIT_WORK_TREE"] = str(work_tree)
    done = subprocess.run(["git", *arguments], env=environment, input=stdin, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _unpack(version: str, folder: Path) -> Path:
    """Unpack a release archive and take off what only an archive has, so that the tree is like a checkout."""
    with tarfile.open(sdists.fetch(version)) as archive:
        archive.extractall(folder, filter="data")
    tree = folder / f"vllm-{version}"
    for leftover in (tree / "PKG-INFO", tree / "vllm" / "_version.py", tree / "vllm" / "commit_id.py"):
        leftover.unlink(missing_ok=True)
    for leftover in tree.glob("*.egg-info"):
        shutil.rmtree(leftover)
    settings = tree / "setup.cfg"
    if settings.exists() and re.findall(r"^\[(.+)\]$", settings.read_text(), re.MULTILINE) == ["egg_info"]:
        settings.unlink()
    return tree


def _message(version: str, stand_ins: list[str]) -> str:
    lines = [f"vLLM {version}", "", f"The contents of vllm-{version}.tar.gz, sha256 {sdists.PINS[version]}."]
    if stand_ins:
        lines += ["The archive lacks these files; the neuronops sandbox stands in for them with its own:", *stand_ins]
    return "\n".join([*lines, ""])


def bare(repository: Path) -> None:
    """Make an empty repository that is served as GitHub serves one."""
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--bare")
    git(repository, "symbolic-ref", "HEAD", "refs/heads/main")
    # As on GitHub: partial clones, and commits by their hash.
    for name in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        git(repository, "config", name, "true")


def write(repository: Path) -> dict[str, str]:
    """Make the bare repository; return the commit of each version."""
    bare(repository)
    commits: dict[str, str] = {}
    for day, version in enumerate(sdists.PINS):
        with tempfile.TemporaryDirectory() as folder:
            tree = _unpack(version, Path(folder))
            overlay = OVERLAYS / version
            stand_ins = sorted(path.relative_to(overlay).as_posix() for path in overlay.rglob("*") if path.is_file())
            if stand_ins:
                shutil.copytree(overlay, tree, dirs_exist_ok=True)
            git(repository, "add", "--all", "--force", ".", work_tree=tree)
            contents = git(repository, "write-tree")
            # The next tree's files may look unchanged to the index: other contents, same size, date and inode.
            (repository / "index").unlink()
        parent = ["-p", list(commits.values())[-1]] if commits else []
        commits[version] = git(
            repository, "commit-tree", contents, *parent, "-m", _message(version, stand_ins), day=day
        )
        git(repository, "update-ref", f"refs/tags/v{version}", commits[version])
    git(repository, "update-ref", "refs/heads/main", list(commits.values())[-1])
    git(repository, "repack", "-a", "-d", "-q")
    git(repository, "pack-refs", "--all")
    return commits


def filled(folder: Path, suffixes: Collection[str], values: Mapping[bytes, str]) -> dict[str, bytes]:
    """The files of a folder by their names in it, with a value in the place of each marker."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in suffixes):
        content = path.read_bytes()
        for marker, value in values.items():
            content = content.replace(marker, value.encode())
        files[path.relative_to(folder).as_posix()] = content
    return files


def write_trees(repository: Path, trees: dict[str, tuple[str, dict[str, bytes]]]) -> dict[str, str]:
    """Make a bare repository with a commit and tag for each of {name: (tag, files)}; return the commit of each."""
    bare(repository)
    commits: dict[str, str] = {}
    for day, (name, (tag, files)) in enumerate(trees.items()):
        with tempfile.TemporaryDirectory() as folder:
            for path, content in files.items():
                file = Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            git(repository, "add", "--all", "--force", ".", work_tree=Path(folder))
            contents = git(repository, "write-tree")
            (repository / "index").unlink()
        parent = ["-p", list(commits.values())[-1]] if commits else []
        commits[name] = git(repository, "commit-tree", contents, *parent, "-m", f"{name}, {tag}", day=day)
        git(repository, "update-ref", f"refs/tags/{tag}", commits[name])
    git(repository, "update-ref", "refs/heads/main", list(commits.values())[-1])
    return commits


def _beside(repository: Path, original: Path) -> None:
    """Make a bare repository with the branch of the original, which stands beside it and has the objects."""
    bare(repository)
    (repository / "objects/info/alternates").write_text(f"../../{original.name}/objects\n")
    git(repository, "update-ref", "refs/heads/main", git(original, "rev-parse", "main"))


def write_moved(repository: Path, original: Path) -> None:
    """Make a copy in which each tag points at another commit, as when somebody moves a tag upstream."""
    _beside(repository, original)
    for version in sdists.PINS:
        tag = f"refs/tags/v{version}"
        tree = git(original, "rev-parse", f"{tag}^{{tree}}")
        moved = git(repository, "commit-tree", tree, "-p", git(original, "rev-parse", tag), "-m", "A moved tag")
        git(repository, "update-ref", tag, moved)


def write_signed(repository: Path, original: Path, signer: Signer) -> None:
    """Make a copy in which each tag is an object of its own, signed; upstream's are not."""
    _beside(repository, original)
    for version in sdists.PINS:
        commit = git(original, "rev-parse", f"refs/tags/v{version}")
        header = f"object {commit}\ntype commit\ntag v{version}\ntagger {AUTHOR} <{MAIL}> {FIRST_DAY} +0000\n"
        text = f"{header}\nvLLM {version}, signed by the neuronops sandbox\n".encode()
        signed = text + signer.detached(text)
        git(repository, "update-ref", f"refs/tags/v{version}", git(repository, "mktag", stdin=signed.decode()))
