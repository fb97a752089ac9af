# SPDX-License-Identifier: GPL-3.0-or-later
"""The git remote of the plugin, which is the stand-in or out of a clone, and what plays are told of its commits."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import lifecycle
from sandbox.demo import Demo
from sandbox.repositories import build, plugin_remote
from sandbox.repositories.python_index import EMULATION
from sandbox.settings import SandboxError, Settings

CHECKOUT = Path(__file__).resolve().parents[3]
STACKS = plugin_remote.entries()


def git(repository: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", repository, *words], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def no_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugin_remote.VARIABLE, raising=False)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    repository = tmp_path_factory.mktemp("plugin") / "plugin.git"
    return repository, plugin_remote.write(repository, "")


def test_each_stack_finds_the_stand_in_of_its_plugin(stand_in: tuple[Path, dict[str, str]]) -> None:
    repository, commits = stand_in
    stood_in_for = [entry for entry in STACKS.values() if plugin_remote.has(entry["plugin"]["version"])]
    assert [entry["vllm"]["version"] for entry in stood_in_for] == ["0.16.0", "0.13.0", "0.11.0"]
    assert git(repository, "tag").split() == ["0.2.2+lts", "0.4.1", "0.5.0"]
    for entry in stood_in_for:
        plugin = entry["plugin"]
        assert git(repository, "rev-parse", plugin["ref"]) == commits[plugin["ref"]]
        files = git(repository, "ls-tree", "-r", "--name-only", plugin["ref"]).splitlines()
        assert {f"{name.replace('.', '/')}.py" for name in plugin["modules"]} <= set(files)
        setup = git(repository, "show", f"{plugin['ref']}:setup.py")
        assert f'version="{plugin["version"]}"' in setup
        assert f'"vllm=={entry["vllm"]["version"]}"' in setup
        assert f'"{plugin["entry_point"]} = vllm_neuron:register"' in setup
        for file in files:
            assert "@VERSION@" not in git(repository, "show", f"{plugin['ref']}:{file}"), file


def test_the_stand_in_says_what_it_is_and_is_never_the_pinned_commit(stand_in: tuple[Path, dict[str, str]]) -> None:
    repository, commits = stand_in
    assert not set(commits.values()) & set(plugin_remote.pins().values())
    for tag in commits:
        assert "This is not the plugin" in git(repository, "show", f"{tag}:README.md")
        assert "Stand-in of the neuronops sandbox" in git(repository, "show", f"{tag}:setup.py")
    package = ast.get_docstring(ast.parse((EMULATION / "vllm-neuron/vllm_neuron/__init__.py").read_text()))
    assert package and "stand-in" in package


def test_the_stand_in_has_the_same_commits_everywhere(stand_in: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    assert plugin_remote.write(tmp_path / "other.git", "") == stand_in[1]


def test_the_demo_of_a_release_that_nothing_stands_in_for_wants_a_clone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEURONOPS_CACHE", str(tmp_path))
    monkeypatch.delenv(plugin_remote.VARIABLE, raising=False)
    monkeypatch.setattr(plugin_remote, "STOOD_IN_FOR", ("0.4.1",))
    with pytest.raises(SandboxError, match=r"needs the plugin vllm-neuron 0\.5\.0.*Set NEURONOPS_PLUGIN_REPOSITORY"):
        Demo(Settings.from_environment(), "vllm-0.16.0")
    monkeypatch.setenv(plugin_remote.VARIABLE, "/srv/clone")
    assert Demo(Settings.from_environment(), "vllm-0.16.0").which_plugin().startswith("Real too:")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, str]]:
    """A clone in which one of the pinned commits is."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    (folder / "setup.py").write_text("real\n")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b.invalid", "commit", "--quiet", "-m", "real")
    pins = {"0.4.1": git(folder, "rev-parse", "HEAD"), "0.5.0": "f" * 40}
    monkeypatch.setattr(plugin_remote, "pins", lambda: pins)
    return folder, pins


def test_the_real_plugin_comes_from_the_clone(clone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, pins = clone
    for name in ("between", "0.5.0"):
        git(folder, "-c", "user.name=a", "-c", "user.email=a@b.invalid", "commit", "--allow-empty", "-q", "-m", name)
    pins.update({"0.5.0": git(folder, "rev-parse", "HEAD"), "0.6.0": "d" * 40})
    served = tmp_path / "real.git"
    assert plugin_remote.write(served, str(folder)) == {tag: pins[tag] for tag in ("0.4.1", "0.5.0")}
    names = git(served, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    first, last = pins["0.4.1"], pins["0.5.0"]
    assert names == [f"refs/heads/main {first}", f"refs/tags/0.4.1 {first}", f"refs/tags/0.5.0 {last}"]
    assert git(served, "show", "0.4.1:setup.py") == "real"


def test_a_clone_without_any_of_the_commits_is_refused(clone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    clone[1]["0.4.1"] = "e" * 40
    with pytest.raises(SandboxError, match="which has none of the commits"):
        plugin_remote.write(tmp_path / "real.git", str(clone[0]))
    with pytest.raises(SandboxError, match="git cannot read it"):
        plugin_remote.write(tmp_path / "none.git", str(tmp_path / "nowhere"))


def test_the_remote_is_made_again_for_another_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def inputs() -> str:
        return build._inputs("keys", "key", "kernel")["github.com"]

    monkeypatch.delenv(plugin_remote.VARIABLE, raising=False)
    before = inputs()
    monkeypatch.setenv(plugin_remote.VARIABLE, "/srv/clone")
    assert inputs() != before
    monkeypatch.delenv(plugin_remote.VARIABLE)
    (tmp_path / "vllm-neuron").mkdir()
    monkeypatch.setattr(plugin_remote, "STAND_IN", tmp_path / "vllm-neuron")
    assert inputs() != before


def told(tmp_path: Path, name: str | None) -> dict[str, Any]:
    """The stack that a play against the sandbox gets."""
    facts = {
        "fingerprint": "A" * 40,
        "commits": {"0.13.0": "b" * 40, "0.9.2": "c" * 40},
        "light_commits": {},
        "plugin_commits": {"0.4.1": "d" * 40},
    }
    given = {**lifecycle.variables(facts), **({"neuron_stack": name} if name else {})}
    (tmp_path / "vars.yml").write_text(yaml.safe_dump(given))
    command = ["ansible", "localhost", "-i", "localhost,", "-c", "local", "-e", f"@{tmp_path / 'vars.yml'}"]
    command += ["-m", "ansible.builtin.debug", "-a", "msg={{ lookup('neuronops.vllm.stack') | to_json }}"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".build/collections"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(json.loads(done.stdout.partition("=>")[2])["msg"])
    return found


def test_plays_expect_the_commits_that_the_sandbox_serves(tmp_path: Path) -> None:
    found = told(tmp_path, "vllm-0.13.0")
    assert (found["vllm"]["commit"], found["plugin"]["commit"]) == ("b" * 40, "d" * 40)
    assert found["kernel"] == {"minimum": None, "below": None}
    # What is not served has the commit of the data, and is refused by it.
    assert told(tmp_path, "vllm-0.16.0")["plugin"]["commit"] == STACKS["vllm-0.16.0"]["plugin"]["commit"]


def test_plays_with_a_stack_that_has_no_plugin_are_told_of_none(tmp_path: Path) -> None:
    found = told(tmp_path, "vllm-0.9.2")
    assert found["vllm"]["commit"] == "c" * 40
    assert "plugin" not in found


@pytest.mark.parametrize(
    ("clone_of_it", "begins", "says"),
    [("", "Stands in:", "sandbox/emulation/vllm-neuron"), ("/srv/clone", "Real too:", "commit 4fac6b7b92")],
)
def test_the_demo_says_which_plugin_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clone_of_it: str, begins: str, says: str
) -> None:
    monkeypatch.setenv("NEURONOPS_CACHE", str(tmp_path))
    monkeypatch.setenv(plugin_remote.VARIABLE, clone_of_it)
    told_of = Demo(Settings.from_environment(), "vllm-0.13.0").which_plugin()
    assert told_of.startswith(begins) and says in told_of and "vllm-neuron 0.4.1" in told_of


def test_the_demo_says_that_a_plugin_of_the_public_index_is_the_real_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEURONOPS_CACHE", str(tmp_path))
    told_of = Demo(Settings.from_environment(), "optimum-0.4.5").which_plugin()
    assert told_of == "Real too:  the plugin optimum-neuron 0.4.5, the wheel of the public index."
