# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules share: locks, indexes, certificates; programs whose failures speak; uv, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import forms, packages
from ansible_collections.neuronops.vllm.plugins.plugin_utils import stacks

NEURON = "https://neuron.example.com"
LOCK = """\
# head
idna==3.10 \\
    --hash=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \\
    --hash=sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
setuptools==79.0.1 \\
    --hash=sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
torch-neuronx==2.5.1.2.7.5413+113e6810 \\
    --hash=sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd
"""
REQUIREMENT = "uv==0.9.9 \\\n    --hash=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"


def test_a_program_says_what_it_did_and_the_log_keeps_it_behind_what_was_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    assert packages.run(["sh", "-c", "echo one; echo two >&2"], {}, str(log)) == "one\ntwo"
    assert log.read_text() == "before\none\ntwo\n"
    assert packages.run(["pwd"], {}, cwd=str(tmp_path)) == str(tmp_path)


def test_a_failure_shows_the_end_of_what_the_program_said() -> None:
    with pytest.raises(packages.PackagesError) as failure:
        packages.run(["sh", "-c", "seq 100; exit 3"], {})
    first, *lines = str(failure.value).split("\n")
    assert first == "`sh -c seq 100; exit 3` ended with status 3: 71"
    assert lines[-1] == "100"


def test_a_password_in_an_indexs_address_reaches_the_program_and_not_the_message() -> None:
    address = "https://me:hidden@mirror.example.com/simple"
    seen = """case "$UV_DEFAULT_INDEX $PIP_INDEX_URL" in *:hidden@*:hidden@*) exit 4; esac"""
    with pytest.raises(packages.PackagesError) as failure:
        packages.run(["sh", "-c", seen, "-"], {"index_url": address})
    assert "ended with status 4" in str(failure.value)
    assert "me:hidden" not in str(failure.value)


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(packages.PackagesError, match=r"/nowhere/uv cannot be started: .*No such file"):
        packages.run(["/nowhere/uv"], {})


def test_the_programs_of_an_environment_come_first_on_path(tmp_path: Path) -> None:
    compiler = tmp_path / "neuronx-cc"
    compiler.write_text("#!/bin/sh\necho found\n")
    compiler.chmod(0o755)
    assert packages.run(["sh", "-c", "neuronx-cc"], {}, path=str(tmp_path)) == "found"


def test_no_program_may_ask_a_question(tmp_path: Path) -> None:
    (tmp_path / "typed").write_text("yes\n")
    own = os.dup(0)
    try:
        with (tmp_path / "typed").open() as typed:
            os.dup2(typed.fileno(), 0)
            assert packages.run(["sh", "-c", "read answer || echo nobody"], {}) == "nobody"
    finally:
        os.dup2(own, 0)
        os.close(own)


def test_each_installer_is_told_of_the_indexes_in_its_own_words() -> None:
    sources = {"neuron_index_url": "https://neuron.example.com", "torch_index_url": "https://torch.example.com"}
    urls = list(sources.values())
    uv, pip = packages.index_arguments(sources, "uv"), packages.index_arguments(sources, "pip")
    assert (uv, pip) == (["--index-strategy", "unsafe-best-match"], [])
    environment = packages.program_environment(sources, {})
    assert environment["UV_INDEX"].split()[:2] == environment["PIP_EXTRA_INDEX_URL"].split()[:2] == urls


class Bootstrap:
    """Stands in for `python -m venv` and for the pip in what that made."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.breaks = False
        self.requirement = ""

    def __call__(self, command: list[str], _sources: Any, _log: Any = None) -> str:
        self.commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir()
        elif self.breaks:
            raise packages.PackagesError("the index is down")
        else:
            self.requirement = Path(command[-1]).read_text()
            program = Path(command[0]).with_name("uv")
            program.touch()
            program.chmod(0o755)
        return ""


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> Bootstrap:
    stand_in = Bootstrap()
    monkeypatch.setattr(packages, "run", stand_in)
    return stand_in


def test_uv_is_installed_once_from_a_file_with_its_hash(tmp_path: Path, bootstrap: Bootstrap) -> None:
    tools = tmp_path / "tools"
    sources = {"neuron_index_url": "https://neuron.example.com", "wheelhouse": None}
    program = packages.have_uv(REQUIREMENT, str(tools), "/usr/bin/python3", sources)
    assert program == str(tools / "uv-0.9.9" / "bin" / "uv")
    assert bootstrap.requirement == REQUIREMENT
    make, install = bootstrap.commands
    assert make[:4] == ["/usr/bin/python3", "-I", "-m", "venv"]
    assert {"--require-hashes", "--no-deps", "--only-binary"} < set(install)
    assert "https://neuron.example.com" not in install, "Neuron's index has no uv to trust"
    assert [entry.name for entry in tools.iterdir()] == ["uv-0.9.9"]
    assert (tools / "uv-0.9.9").stat().st_mode & 0o777 == 0o755, "other users run it too"
    assert packages.have_uv(REQUIREMENT, str(tools), "/usr/bin/python3", sources) == program
    assert len(bootstrap.commands) == 2


def test_uv_comes_from_the_wheelhouse_where_there_is_one(tmp_path: Path, bootstrap: Bootstrap) -> None:
    packages.have_uv(REQUIREMENT, str(tmp_path), "/usr/bin/python3", {"wheelhouse": "/srv/wheels"})
    install = bootstrap.commands[1]
    assert install[install.index("--no-index") :][:3] == ["--no-index", "--find-links", "/srv/wheels"]


def test_a_failed_installation_of_uv_leaves_nothing(tmp_path: Path, bootstrap: Bootstrap) -> None:
    bootstrap.breaks = True
    with pytest.raises(packages.PackagesError, match="the index is down"):
        packages.have_uv(REQUIREMENT, str(tmp_path), "/usr/bin/python3", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_its_uv_is_replaced(tmp_path: Path, bootstrap: Bootstrap) -> None:
    left = tmp_path / "uv-0.9.9" / "bin"
    left.mkdir(parents=True)
    (left / "uv").touch()  # cut off by a full disk, before it could be run
    (tmp_path / "uv-0.9.8").mkdir()
    program = Path(packages.have_uv(REQUIREMENT, str(tmp_path), "/usr/bin/python3", {}))
    assert program.stat().st_mode & 0o111
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["uv-0.9.8", "uv-0.9.9"]
    assert len(bootstrap.commands) == 2


def test_a_lock_is_read() -> None:
    assert packages.parse_lock(LOCK) == {
        "idna": "3.10",
        "setuptools": "79.0.1",
        "torch-neuronx": "2.5.1.2.7.5413+113e6810",
    }


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2024.01.02", "2024.1.2", True),
        ("2.18.121.0+9e31e41a", "2.18.121.0+9E31E41A", True),
        ("1.0.post1", "1.0_post1", True),
        ("2.5.1", "2.5.1+cpu", False),
        ("1.10", "1.1", False),
    ],
)
def test_versions_are_compared_as_folders_spell_them(one: str, other: str, same: bool) -> None:
    assert packages.same_version(one, other) is same


def test_a_host_trusts_the_given_certificates_or_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, own = tmp_path / "given.crt", tmp_path / "own.crt"
    given.touch()
    own.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    monkeypatch.delenv("PIP_CERT", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for sources, bundle in (({"ca_file": str(given)}, given), ({"ca_file": str(tmp_path / "none")}, own), ({}, own)):
        environment = packages.program_environment(sources)
        assert {environment[name] for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")} == {str(bundle)}


def test_a_mirror_that_only_pip_knows_is_used_by_uv_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.com/simple")
    assert packages.program_environment({})["UV_DEFAULT_INDEX"] == "https://mirror.example.com/simple"
    environment = packages.program_environment({"index_url": "https://other.example.com"})
    assert environment["UV_DEFAULT_INDEX"] == environment["PIP_INDEX_URL"] == "https://other.example.com"


def test_a_wheelhouse_excludes_every_index() -> None:
    sources = {"wheelhouse": "/srv/wheels", "neuron_index_url": NEURON}
    for installer in ("uv", "pip"):
        assert packages.index_arguments(sources, installer) == ["--no-index", "--find-links", "/srv/wheels"]


@pytest.mark.parametrize(
    "line",
    [
        f"evil @ http://127.0.0.1/evil.whl --hash=sha256:{'a' * 64}",
        "--index-url http://attacker.example.com/simple",
        f"name[extra]==1.0 --hash=sha256:{'a' * 64}",
        "idna==3.10",
        f"idna==3.10 --hash=md5:{'a' * 32}",
        "-r /etc/passwd",
    ],
)
def test_a_line_that_is_not_understood_refuses_a_lock(line: str) -> None:
    with pytest.raises(forms.FormError):
        packages.parse_lock(LOCK + line + "\n")


@pytest.mark.parametrize(
    ("requirements", "constraints", "excluded", "says"),
    [
        (["idna==3.11"], [], [], "it has idna 3.10, and idna==3.11 is asked for"),
        (["IDNA[x] == 3.10.0", "torch-neuronx==2.5.1.2.7.5413"], [], [], ""),
        (["notebook"], [], [], "it lacks notebook"),
        (["notebook; sys_platform == 'win32'"], [], [], ""),
        ([], ["setuptools==80"], [], "it has setuptools 79.0.1"),
        ([], [], ["Setuptools"], "it has setuptools, which must never be installed"),
    ],
)
def test_a_lock_has_what_was_asked_for(
    requirements: list[str], constraints: list[str], excluded: list[str], says: str
) -> None:
    lock = forms.lock(LOCK)
    if not says:
        packages.check_lock(lock, requirements, constraints, excluded)
        return
    with pytest.raises(packages.PackagesError, match=says):
        packages.check_lock(lock, requirements, constraints, excluded)


def test_every_package_of_every_stack_is_known_as_aws_or_the_publics() -> None:
    public = {"torch", "torchvision"}
    entries = stacks.load()["stacks"].values()
    names = {name for entry in entries for name in entry["python_packages"]}
    assert {name for name in names if not packages.is_neuron(name)} == public
    plugins = {entry["plugin"]["name"] for entry in entries if "plugin" in entry}
    assert {name: packages.is_neuron(name) for name in plugins} == {"vllm-neuron": True, "optimum-neuron": False}


def test_what_only_aws_provides_is_known_by_its_name() -> None:
    for name in (
        "torch_neuronx",
        "Neuronx-CC",
        "nki",
        "libtorch_neuronx_lite",
        "neuronx-distributed",
        "transformers-neuronx>=0.13",
        "libneuronxla ; extra == 'x'",
    ):
        assert packages.is_neuron(name), name
    for name in ("optimum-neuron", "neuron", "islpy", "torch", ""):
        assert not packages.is_neuron(name), name
    assert packages.is_neuron("our_neuron.tools", ["Our-Neuron-Tools"])
