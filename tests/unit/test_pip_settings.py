# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own configuration of pip decides where packages come from, for uv as for pip, and on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import packages, pip_settings, process

FILE = """\
[global]
index_url = https://one.example.com/simple
extra-index-url =
    https://two.example.com/simple
    # of the other team
    https://three.example.com/simple
Trusted-Host = one.example.com
timeout = 99
[install]
index-url = https://company.example.com/simple
user = true
target = /elsewhere
"""


@pytest.fixture
def caller(tmp_path: Path) -> dict[str, str]:
    """The variables of a caller whose only configuration is at home."""
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "none"), "PATH": os.defpath}


def write(caller: dict[str, str], text: str) -> None:
    # A file that is named is read in place of the user's, and before the system's of this machine.
    file = Path(caller["HOME"]) / "pip.conf"
    file.write_text(text, encoding="utf-8")
    caller["PIP_CONFIG_FILE"] = str(file)


def test_what_pip_reads_is_what_uv_is_told(caller: dict[str, str]) -> None:
    write(caller, FILE)
    found = packages.program_environment({}, caller)
    assert found["UV_DEFAULT_INDEX"] == found["PIP_INDEX_URL"] == "https://company.example.com/simple"
    assert found["UV_INDEX"] == found["PIP_EXTRA_INDEX_URL"]
    assert found["UV_INDEX"].split() == ["https://two.example.com/simple", "https://three.example.com/simple"]
    assert (found["UV_INSECURE_HOST"], found["UV_HTTP_TIMEOUT"]) == ("one.example.com", "99")


def test_how_and_where_pip_installs_is_not_the_hosts_to_say(caller: dict[str, str]) -> None:
    write(caller, FILE)
    caller.update(PIP_USER="1", PIP_TARGET="/elsewhere", PIP_REQUIRE_VIRTUALENV="1", UV_CONFIG_FILE="/srv/uv.toml")
    found = packages.program_environment({}, caller)
    assert (found["PIP_CONFIG_FILE"], found["UV_NO_CONFIG"]) == (os.devnull, "1")
    assert not {"PIP_USER", "PIP_TARGET", "PIP_REQUIRE_VIRTUALENV", "UV_CONFIG_FILE"} & set(found)


def test_an_index_of_the_user_wins(caller: dict[str, str]) -> None:
    write(caller, FILE + "no-index = yes\n")
    assert packages.program_environment({}, caller)["UV_NO_INDEX"] == "1"
    found = packages.program_environment({"index_url": "https://mine.example.com"}, caller)
    assert found["UV_DEFAULT_INDEX"] == found["PIP_INDEX_URL"] == "https://mine.example.com"
    assert not {"UV_NO_INDEX", "PIP_NO_INDEX"} & set(found)


def test_a_proxy_with_its_password_reaches_the_programs(caller: dict[str, str]) -> None:
    write(caller, "[global]\nproxy = http://user:secret@proxy.example.com:3128\n")
    found = packages.program_environment({}, caller)
    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://user:secret@proxy.example.com:3128"


def test_what_uv_cannot_be_told_is_refused_with_the_option(caller: dict[str, str]) -> None:
    write(caller, "[global]\nkeyring-provider = import\n")
    with pytest.raises(packages.PackagesError, match=r"keyring-provider.*\*_index_url"):
        packages.program_environment({}, caller)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff[global]\ntimeout = 1\n",
        "[global]\na = 1\n[global]\nb = 1\n",
        "timeout = 1\n",
        "[global]\na = 1\nA = 2\n",
    ],
)
def test_a_file_that_pip_cannot_read_is_refused(caller: dict[str, str], text: str) -> None:
    write(caller, text)
    with pytest.raises(packages.PackagesError, match="pip"):
        packages.program_environment({}, caller)


def test_uvs_own_file_is_handed_on_as_far_as_it_names_places(caller: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("tomllib")
    caller["PIP_CONFIG_FILE"] = os.devnull
    (tmp_path / ".config" / "uv").mkdir()
    (tmp_path / ".config" / "uv" / "uv.toml").write_text(
        'no-deps = true\n[[index]]\nurl = "https://company.example.com/simple"\ndefault = true\n'
    )
    found = packages.program_environment({}, caller)
    assert found["UV_DEFAULT_INDEX"] == found["PIP_INDEX_URL"] == "https://company.example.com/simple"
    (tmp_path / ".config" / "uv" / "uv.toml").write_text("index = 3\n")
    with pytest.raises(packages.PackagesError, match=r"\*_index_url"):
        packages.program_environment({}, caller)


def test_files_count_in_pips_order(caller: dict[str, str], tmp_path: Path) -> None:
    """pip itself is asked about the same files."""
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text("[global]\ntimeout = 1\nretries = 7\n")
    (tmp_path / ".config" / "pip" / "pip.conf").write_text("[global]\ntime_out = 3\ntimeout = 2\nproxy =\n")
    found = pip_settings.settings(caller)
    said = subprocess.run(
        [sys.executable, "-I", "-m", "pip", "config", "list"], env=caller, capture_output=True, text=True, check=True
    ).stdout
    assert "global.timeout='2'" in said.split("\n")
    assert (found["timeout"], found["retries"]) == ("2", "7")


def test_a_program_gets_what_is_allowed_of_the_callers_variables() -> None:
    dangerous = {"PYTHONPATH": "/srv", "PYTHONSTARTUP": "/srv/x", "LD_PRELOAD": "/srv/x.so", "UV_CONFIG_FILE": "/srv/x"}
    useful = {"PATH": "/usr/bin", "HOME": "/root", "LC_CTYPE": "C", "https_proxy": "http://p:1", "NO_PROXY": "x"}
    found = process.environment({**dangerous, **useful, "AWS_SECRET_ACCESS_KEY": "x"})
    assert found == {**useful, "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}


def test_a_program_starts_where_the_caller_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert packages.run(["pwd"], {}) == "/"
