# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules jupyter_kernel and pip_configuration."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.modules import jupyter_kernel, pip_configuration

URL = "https://pip.repos.neuron.amazonaws.com"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> Any:
    """Run jupyter_kernel with these arguments and return its result."""
    monkeypatch.setattr(jupyter_kernel, "SYSTEM", str(tmp_path / "kernels"))

    def run(**arguments: Any) -> dict[str, Any]:
        return run_module(jupyter_kernel, **{"name": "demo", "environment": "/opt/demo", **arguments})

    return run


@pytest.fixture
def pip(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> Any:
    """Run pip_configuration with these arguments and return its result."""

    def run(**arguments: Any) -> dict[str, Any]:
        return run_module(pip_configuration, **{"path": str(tmp_path), "extra_index_urls": [URL], **arguments})

    return run


def test_a_kernel_is_written_once_and_removed_once(kernel: Any, tmp_path: Path) -> None:
    file = tmp_path / "kernels" / "demo" / "kernel.json"
    assert kernel(check=True)["changed"]
    assert not file.exists()
    first = kernel(display_name="A demo")
    assert first["changed"]
    assert first["diff"][0]["after"] == file.read_text()
    written = json.loads(file.read_text())
    assert written["argv"][0] == "/opt/demo/bin/python"
    assert written["display_name"] == "A demo"
    assert written["env"]["PATH"] == "/opt/demo/bin:${PATH}"
    assert file.stat().st_mode & 0o777 == 0o644
    assert not kernel(display_name="A demo")["changed"]
    assert kernel(display_name="Another")["changed"]
    assert kernel(state="absent", check=True)["changed"]
    assert file.exists()
    assert kernel(state="absent")["changed"]
    assert not file.parent.exists()
    assert not kernel(state="absent")["changed"]


def test_a_broken_kernel_is_repaired(kernel: Any, tmp_path: Path) -> None:
    kernel()
    file = tmp_path / "kernels" / "demo" / "kernel.json"
    good = file.read_text()
    file.write_text(good[:10])
    assert kernel()["changed"]
    assert file.read_text() == good


def test_a_user_gets_it_at_home(kernel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = SimpleNamespace(pw_dir=str(tmp_path / "home"), pw_uid=0, pw_gid=0, pw_name="root")
    monkeypatch.setattr(jupyter_kernel.pwd, "getpwnam", lambda name: account)
    monkeypatch.setattr(jupyter_kernel.os, "geteuid", lambda: 0)
    result = kernel(users=["somebody"])
    assert list(result["files"]) == [str(tmp_path / "home/.local/share/jupyter/kernels/demo/kernel.json")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "../etc"}, "cannot be the name"),
        ({"name": ".."}, "cannot be the name"),
        ({"users": ["there-is-no-such-user"]}, "does not exist"),
        ({"environment": None}, "environment"),
    ],
)
def test_what_cannot_be_is_refused(kernel: Any, arguments: dict[str, Any], words: str) -> None:
    result = kernel(**arguments)
    assert result["failed"]
    assert words in result["msg"]


def test_a_users_files_are_written_with_the_rights_of_the_user(
    kernel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    account = SimpleNamespace(pw_dir=str(home), pw_uid=4321, pw_gid=8765, pw_name="somebody")
    system, done = jupyter_kernel.os, []
    monkeypatch.setattr(jupyter_kernel.pwd, "getpwnam", lambda name: account)
    monkeypatch.setattr(system, "geteuid", lambda: 0)
    monkeypatch.setattr(system, "getegid", lambda: 0)
    monkeypatch.setattr(system, "getgroups", lambda: [0, 1])
    monkeypatch.setattr(system, "getgrouplist", lambda name, group: [group, 99])
    for name in ("seteuid", "setegid", "setgroups"):
        monkeypatch.setattr(system, name, lambda value, name=name: done.append((name, value)))
    put = jupyter_kernel.put

    def watched(folder: str, text: str) -> None:
        done.append(("put", 0))
        put(folder, text)

    monkeypatch.setattr(jupyter_kernel, "put", watched)
    # The user's own id is taken last and given back first: without root's, the groups could not be changed.
    as_user = [("setgroups", [8765, 99]), ("setegid", 8765), ("seteuid", 4321)]
    as_root = [("seteuid", 0), ("setegid", 0), ("setgroups", [0, 1])]
    assert kernel(users=["somebody"])["changed"]
    assert done == [*as_user, ("put", 0), *as_root]
    done.clear()
    (home / ".local/share/jupyter/kernels").rename(tmp_path / "moved")
    (home / ".local/share/jupyter/kernels").touch()
    answer = kernel(users=["somebody"])
    assert answer["failed"]
    assert f"The kernel {home}/.local/share/jupyter/kernels/demo/kernel.json cannot be changed" in answer["msg"]
    assert done == [*as_user, ("put", 0), *as_root], "root's rights come back after a failure too"


def test_a_link_in_place_of_a_kernel_is_removed_and_not_what_it_leads_to(kernel: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kernel.json").write_text("{}")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "demo").symlink_to(tmp_path / "mine")
    assert kernel(state="absent", environment=None)["changed"]
    assert list((tmp_path / "kernels").iterdir()) == []
    assert (tmp_path / "mine" / "kernel.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"[global]\nextra-index-url = {URL}\n"),
        (f"[global]\nextra-index-url = {URL}/\n", f"[global]\nextra-index-url = {URL}/\n"),
        (
            "# mine\n[global]\ntimeout = 60\nextra-index-url = https://mine.example.com\n"
            "[install]\nno-cache-dir = yes\n",
            "# mine\n[global]\ntimeout = 60\nextra-index-url =\n    https://mine.example.com\n"
            f"    {URL}\n[install]\nno-cache-dir = yes\n",
        ),
        (
            "[global]\nextra-index-url =\n    https://one.example.com\n    https://two.example.com\ntimeout = 60\n",
            "[global]\nextra-index-url =\n    https://one.example.com\n    https://two.example.com\n"
            f"    {URL}\ntimeout = 60\n",
        ),
        (
            "[install]\nextra-index-url = https://other.example.com\n",
            "[install]\nextra-index-url =\n    https://other.example.com\n"
            f"    {URL}\n\n[global]\nextra-index-url = {URL}\n",
        ),
    ],
)
def test_an_index_is_added_beside_what_is_there(before: str, after: str) -> None:
    assert pip_configuration.configured(before, [URL], {}) == after
    assert pip_configuration.configured(after, [URL], {}) == after


def test_options_are_set_and_others_kept() -> None:
    before = "[global]\ncert = /old.crt\ntimeout = 60\n"
    after = pip_configuration.configured(before, [], {"cert": "/new.crt", "index-url": ""})
    assert after == "[global]\ncert = /new.crt\ntimeout = 60\n"


def test_pip_is_configured_once(pip: Any, tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    checked = pip(check=True)
    assert checked["changed"]
    assert not file.exists()
    first = pip()
    assert first["changed"]
    assert file.read_text() == f"[global]\nextra-index-url = {URL}\n"
    assert first["files"] == checked["files"] == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    assert first["diff"] == checked["diff"]
    assert (first["diff"]["before"], first["diff"]["after"]) == ("", file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    second = pip()
    assert (second["changed"], second["files"]) == (False, first["files"])
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["pip.conf"]


def test_a_configuration_that_few_may_read_stays_so(pip: Any, tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://me:secret@mirror.example.com/simple\n")
    file.chmod(0o600)
    assert pip()["changed"]
    assert "me:secret@" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"[global]\nproxy = \xff\xfe\n", None])
def test_what_pip_could_not_read_is_refused_and_kept(pip: Any, tmp_path: Path, content: bytes | None) -> None:
    folder = tmp_path / "environment"
    if content:
        folder.mkdir()
        (folder / "pip.conf").write_bytes(content)
    answer = pip(path=str(folder))
    assert answer["failed"]
    assert f"pip cannot be configured in {folder}/pip.conf" in answer["msg"]
    assert (folder / "pip.conf").read_bytes() == content if content else not folder.exists()
