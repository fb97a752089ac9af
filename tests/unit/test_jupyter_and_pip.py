# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules jupyter_kernel and pip_configuration."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible_collections.neuronops.vllm.plugins.modules import jupyter_kernel, pip_configuration

URL = "https://pip.repos.neuron.amazonaws.com"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run jupyter_kernel with these arguments and return its result."""
    monkeypatch.setattr(jupyter_kernel, "SYSTEM", str(tmp_path / "kernels"))

    def run(**arguments: Any) -> dict[str, Any]:
        given = {"name": "demo", "environment": "/opt/demo", **arguments}
        stated = {"ANSIBLE_MODULE_ARGS": {name: value for name, value in given.items() if value is not None}}
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps(stated).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        monkeypatch.setattr("sys.stdin", io.StringIO())
        with pytest.raises(SystemExit):
            jupyter_kernel.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


def test_a_kernel_is_written_once_and_removed_once(kernel: Any, tmp_path: Path) -> None:
    file = tmp_path / "kernels" / "demo" / "kernel.json"
    assert kernel(_ansible_check_mode=True)["changed"]
    assert not file.exists()
    first = kernel(display_name="A demo", _ansible_diff=True)
    assert first["changed"]
    assert first["diff"][0]["after"] == file.read_text()
    written = json.loads(file.read_text())
    assert written["argv"][0] == "/opt/demo/bin/python"
    assert written["display_name"] == "A demo"
    assert written["env"]["PATH"] == "/opt/demo/bin:${PATH}"
    assert file.stat().st_mode & 0o777 == 0o644
    assert not kernel(display_name="A demo")["changed"]
    assert kernel(display_name="Another")["changed"]
    assert kernel(state="absent", _ansible_check_mode=True)["changed"]
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
            f"[install]\nextra-index-url = https://other.example.com\n\n[global]\nextra-index-url = {URL}\n",
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
