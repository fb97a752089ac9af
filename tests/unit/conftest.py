# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module of the collection in this process, from its arguments to its answer, as a host would."""

from __future__ import annotations

import io
import json
import os
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import basic

# A test says itself what it needs of these; what the shell of the person at work has set would be something else.
for name in list(os.environ):
    if name.upper().startswith(("AWS_", "ANSIBLE_")) or name.upper().endswith("_PROXY"):
        del os.environ[name]


@pytest.fixture
def run_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """Run main() of a module with Ansible's own AnsibleModule; an argument that is None is left out."""
    remote = tmp_path_factory.mktemp("remote")

    def run(module: ModuleType, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {name: value for name, value in arguments.items() if value is not None}
        given.update(
            _ansible_check_mode=check,
            _ansible_diff=True,
            _ansible_remote_tmp=str(remote),
            _ansible_keep_remote_files=True,
        )
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": given}).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        monkeypatch.setattr("sys.stdin", io.StringIO())
        # Ansible keeps warnings for the whole process, or shows them at once where the controller's code is loaded.
        warnings: list[str] = []
        monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _self, warning, **_options: warnings.append(warning))
        capsys.readouterr()
        with pytest.raises(SystemExit):
            module.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {"failed": False, **answer, "warnings": warnings}

    return run


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment that works, with nothing in it."""
    path = tmp_path / "environment"
    venv.EnvBuilder(symlinks=True).create(path)
    return path


@pytest.fixture
def packages_folder(environment: Path) -> Path:
    """The folder of the environment that packages are installed in."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
