# SPDX-License-Identifier: GPL-3.0-or-later
"""What the shell has set does not matter, but for how packages are reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import environment

PROGRAM = Path(environment.__file__)


@pytest.mark.parametrize(
    "name",
    ["AWS_ENDPOINT_URL", "AWS_PROFILE", "ANSIBLE_CONFIG", "MOLECULE_GLOB", "PYTHONPATH", "LC_ALL", "LANGUAGE",
     "PIP_TARGET", "UV_PYTHON", "PYTEST_ADDOPTS", "BASH_ENV", "MAKEFLAGS"],
)  # fmt: skip
def test_it_is_left_out(name: str) -> None:
    assert name not in environment.stated({name: "x"})


@pytest.mark.parametrize("name", ["PATH", "HTTPS_PROXY", "http_proxy", "PIP_INDEX_URL", "SSL_CERT_FILE", "NEURONOPS_X"])
def test_it_is_kept(name: str) -> None:
    assert environment.stated({name: "x"})[name] == "x"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "localhost, mirror.example.com"}, "localhost,mirror.example.com,127.0.0.1,::1"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,b,localhost,127.0.0.1,::1"),
    ],
)
def test_no_proxy_stands_before_what_the_tests_listen_on(given: dict[str, str], wanted: str) -> None:
    stated = environment.stated(given)
    assert (stated["no_proxy"], stated["NO_PROXY"]) == (wanted, wanted)


def test_a_command_runs_in_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('of the caller')")
    command = [
        sys.executable,
        "-I",
        str(PROGRAM),
        sys.executable,
        "-c",
        "import os; print(oct(os.umask(0)), os.environ)",
    ]
    caller = {"PYTHONPATH": str(tmp_path), "LANG": "de_DE.UTF-8", "AWS_PROFILE": "x"}
    done = subprocess.run(command, env=caller, umask=0o077, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("0o22 ")
    assert "C.UTF-8" in done.stdout
    assert "AWS_PROFILE" not in done.stdout
