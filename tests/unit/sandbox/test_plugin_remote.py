# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin's repository that the sandbox serves has what the stacks pin, out of the clone that the user names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from plugins.plugin_utils import stacks
from sandbox.repositories import git_remote, plugin_remote
from sandbox.settings import SandboxError

AS_SOMEBODY = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]


def commit(folder: Path, text: str) -> str:
    (folder / "setup.py").write_text(text)
    for arguments in (["add", "."], ["commit", "-q", "-m", text]):
        subprocess.run(["git", *AS_SOMEBODY, *arguments], cwd=folder, check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def test_the_pins_are_those_of_the_stacks() -> None:
    plugin = stacks.resolve("vllm-0.13.0")["plugin"]
    assert plugin_remote.pins()[plugin["ref"]] == plugin["commit"]
    assert set(plugin_remote.pins()) == {
        entry["plugin"]["ref"] for entry in stacks.load()["stacks"].values() if entry["backend"] == "nxd_inference"
    }


def test_what_is_pinned_and_there_has_its_tag_and_nothing_else_a_name(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _between, last = (commit(clone, text) for text in ("one", "two", "three"))
    monkeypatch.setattr(plugin_remote, "pins", lambda: {"0.1": first, "0.3": last, "0.4": "d" * 40})
    served = tmp_path / "served.git"
    assert plugin_remote.write(served, str(clone)) == {"0.1": first, "0.3": last}
    names = git_remote.git(served, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    assert names == [f"refs/heads/main {first}", f"refs/tags/0.1 {first}", f"refs/tags/0.3 {last}"]
    assert git_remote.git(served, "show", "0.3:setup.py") == "three"


def test_a_clone_without_any_of_them_or_that_is_none_is_refused(clone: Path, tmp_path: Path) -> None:
    commit(clone, "another project")
    with pytest.raises(SandboxError, match=r"which has none of the commits of data/stacks\.yml"):
        plugin_remote.write(tmp_path / "served.git", str(clone))
    with pytest.raises(SandboxError, match=r"NEURONOPS_PLUGIN_REPOSITORY is .*nowhere, and git cannot read it"):
        plugin_remote.write(tmp_path / "other.git", str(tmp_path / "nowhere"))
