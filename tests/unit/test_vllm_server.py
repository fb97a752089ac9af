# SPDX-License-Identifier: GPL-3.0-or-later
"""Role vllm_server: what its unit and environment file say, and what its checks refuse before anything is changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.neuronops.vllm.plugins.module_utils import activations
from ansible_collections.neuronops.vllm.plugins.plugin_utils import server, systemd

from tests.unit.role_variables import read, value

EVERYWHERE = "0.0.0.0"  # noqa: S104 - the address that the role refuses
TEMPORARY = Path("/tmp")  # noqa: S108 - the folder of which a service has one of its own
CHECKOUT = Path(__file__).resolve().parents[2]
ROLE = CHECKOUT / "roles" / "vllm_server"
MANIFESTS: dict[str, dict[str, Any]] = {
    "vllm": {"packages": {"vllm": "0.9.2+neuron218"}, "files": {"/w.whl": "0" * 64}},
    "other": {"inputs": "x"},
}
ODD = '/srv/my modèl 100% $HOME ${x} "q" \\n \'; #\\'
ANALYZE = shutil.which("systemd-analyze")
NEEDRESTART = {"_vllm_server_has_needrestart": True}
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the role asks as another user, for which it must be root")


def known(**options: Any) -> dict[str, Any]:
    """Return the role's variables with these options."""
    given = {f"vllm_server_{name}": option for name, option in {"model": "m", **options}.items()}
    return {
        **read("vllm_server", "defaults"),
        **read("vllm_server", "vars"),
        "__vllm_server_host": {"neuron_ls": {"cores": 2}, "environments": [{"manifests": MANIFESTS}]},
        **given,
    }


def unit(**options: Any) -> str:
    text: str = value("_vllm_server_unit", known(**options))
    return text


def setting(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


@needs_systemd
def test_systemd_reads_the_command_as_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "vllm.service"
    file.write_text(unit(model=ODD, venv="/opt/a b%").replace('"/opt/a b%%/bin/python"', '"/bin/true"'))
    said = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(file)],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "debug"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout
    line = re.search(r"Command Line: (.*)", said)
    assert line, said
    # systemd shows a command as a shell takes it; the variables are expanded at the start alone.
    shown = [
        re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line.group(1))
    ]
    assert shown[shown.index("--model") + 1].replace("$$", "$") == ODD
    assert shown[shown.index("--served-model-name") + 1].replace("$$", "$") == ODD
    assert f"Description: vLLM serving {ODD} on AWS Neuron" in said
    assert "Environment: PATH=/opt/a b%/bin:/opt/aws/neuron/bin" in said
    # That is how it complains of a line; of its own groups of system calls it knows more than an older libseccomp does.
    assert not re.findall(r"vllm\.service:\d+: (?!Failed to parse system call, ignoring: \w+$).*", said, re.MULTILINE)


@needs_systemd
@pytest.mark.skipif(
    ANALYZE is not None
    and int(subprocess.check_output([ANALYZE, "--version"], text=True).split()[1].split(".")[0]) < 250,
    reason="systemd-analyze judges files since version 250",
)
def test_the_unit_is_exposed_no_more_than_it_must_be(tmp_path: Path) -> None:
    file = tmp_path / "vllm.service"
    file.write_text(unit())
    said = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", "--threshold=20", "--no-pager", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout
    assert "Overall exposure level" in said.stdout


def test_the_unit_lets_the_server_do_what_it_needs() -> None:
    text = unit()
    assert setting(text, "DeviceAllow") == ["char-neuron rw"]
    assert (
        setting(text, "MemoryDenyWriteExecute") == setting(text, "PrivateDevices") == setting(text, "ProcSubset") == []
    )
    assert setting(text, "LimitMEMLOCK") == ["infinity"]
    assert int(setting(text, "LimitNOFILE")[0]) >= 65536
    assert setting(text, "CacheDirectory") == setting(text, "StateDirectory") == ["vllm"]


def test_a_server_that_ends_comes_back_and_one_that_cannot_start_stays_down() -> None:
    head, _section, service = unit().partition("[Service]")
    assert setting(service, "Restart") == ["always"]
    assert setting(head, "StartLimitBurst") == ["10"]
    assert setting(head, "StartLimitIntervalSec") == ["6h"]


@pytest.mark.parametrize(("stack", "writes"), [("vllm-0.9.2", []), ("vllm-0.4.2", ['"-/srv"'])])
def test_only_an_old_vllm_may_write_beside_the_model(stack: str, writes: list[str]) -> None:
    text = value("_vllm_server_unit", {**known(model="/srv/m"), "neuron_stack": stack})
    assert setting(text, "ReadWritePaths") == writes


def test_a_model_among_temporary_files_is_seen_by_the_service() -> None:
    assert setting(unit(model=f"{TEMPORARY}/a b"), "BindReadOnlyPaths") == ['"-/tmp/a b"']
    assert setting(unit(model="/srv/a"), "BindReadOnlyPaths") == []


@pytest.mark.parametrize("option", ["model", "served_model_name", "venv", "host", "user", "service"])
def test_a_newline_never_reaches_the_unit(option: str) -> None:
    with pytest.raises(Exception, match=f"vllm_server_{option}"):
        unit(**{option: "/x\n[Service]\nExecStartPre=+/bin/touch /owned"})


def test_the_environment_file_says_what_was_given() -> None:
    lines = value(
        "_vllm_server_environment_lines",
        known(api_key="pässwörd", environment={"HF_HOME": "/srv/modèles", "X": 'a"$\\'}),
    )
    assert lines[-3:] == ['VLLM_API_KEY="pässwörd"', 'HF_HOME="/srv/modèles"', 'X="a\\"\\$\\\\"']


def test_what_was_compiled_outlives_the_service_unless_the_user_says_where() -> None:
    ours = value("_vllm_server_environment_lines", known())
    assert 'NEURON_COMPILE_CACHE_URL="/var/cache/vllm/neuron-compile-cache"' in ours
    theirs = value("_vllm_server_environment_lines", known(environment={"NEURON_COMPILE_CACHE_URL": "s3://b/c"}))
    assert [line for line in theirs if line.startswith("NEURON_COMPILE_CACHE_URL")] == [
        'NEURON_COMPILE_CACHE_URL="s3://b/c"'
    ]


def test_the_configuration_is_told_by_the_whole_unit_and_environment() -> None:
    def of(**changed: Any) -> Any:
        return value("_vllm_server_configuration", {**known(), **changed})

    assert of() == of()
    assert of() != of(_vllm_server_unit="# another\n" + value("_vllm_server_unit", known()))
    assert of() != of(_vllm_server_fixed_environment={"HOME": "/elsewhere"})
    assert of() != of(vllm_server_api_key="other")


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"other": {"inputs": "y"}}, True),
        ({"other": {"inputs": "x", "packages": {"torch": "2"}}}, False),
        ({"vllm": {**MANIFESTS["vllm"], "packages": {"vllm": "0.9.2+neuron219"}}}, False),
        ({"vllm": {**MANIFESTS["vllm"], "files": {"/w.whl": "1" * 64}}}, False),
    ],
)
def test_the_configuration_is_told_by_what_is_installed(changed: dict[str, Any], same: bool) -> None:
    def of(manifests: dict[str, Any]) -> Any:
        host = {"neuron_ls": {"cores": 2}, "environments": [{"manifests": manifests}]}
        return value("_vllm_server_configuration", {**known(), "__vllm_server_host": host})

    assert (of(dict(MANIFESTS)) == of({**MANIFESTS, **changed})) is same


def test_the_hash_of_a_file_is_that_of_what_is_written() -> None:
    wanted = value("_vllm_server_wanted", {**known(api_key="k"), "inventory_hostname": "h", **NEEDRESTART})
    for path, text in (
        ("/etc/systemd/system/vllm.service", "_vllm_server_unit"),
        ("/etc/neuronops/vllm.env", "_vllm_server_environment_text"),
    ):
        written = value(text, known(api_key="k"))
        assert wanted["files"][path] == hashlib.sha256(written.encode()).hexdigest()
        assert written.startswith(activations.MARK + "\n") and written.endswith("\n")
    assert {"HOME", "NEURONOPS_CONFIGURATION", "VLLM_API_KEY"} < set(activations.variables(written))
    assert list(wanted["other_files"]) == ["/etc/needrestart/conf.d/neuronops-vllm.conf"]


@pytest.mark.parametrize(
    "argument",
    [
        *server.OPTIONS,
        "--port=1",
        "--por",
        "--max_model_len=5",
        "--ssl-keyfile=/k",
        "--ssl_certfile",
        "--tensor-par",
        "-t",
        "-tp=2",
        "--api-k=x",
        "--port 9000",
        "--",
    ],
)
def test_an_argument_that_is_an_option_is_refused(argument: str) -> None:
    refused = server.refusals(["--seed=1", argument, "x"])
    assert len(refused) == 1 and refused[0].startswith(argument.partition("=")[0].split()[0])


@pytest.mark.parametrize(
    "argument",
    ["--seed", "--config-format", "--dtype=bfloat16", "--model-impl", "x", "/a", "", "--host-x", "--block-size"],
)
def test_an_argument_that_is_none_is_passed_on(argument: str) -> None:
    assert server.refusals([argument]) == []


def test_the_block_size_is_an_option_where_it_is_the_context() -> None:
    assert len(server.refusals(["--block-size=8"], block_size_is_context=True)) == 1


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        (EVERYWHERE, False),
        ("::", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("::ffff:127.0.0.1", False),
    ],
)
def test_the_loopback_is_told_from_other_addresses(host: str, loopback: bool) -> None:
    assert value("_vllm_server_loopback", known(host=host)) is loopback


def test_what_served_comes_back_before_the_words_about_it() -> None:
    tasks = yaml.safe_load((ROLE / "tasks" / "take_back.yml").read_text())
    kinds = [("block" if "block" in task else next(key for key in task if "." in key)) for task in tasks]
    assert kinds.index("block") < kinds.index("ansible.builtin.command") < kinds.index("ansible.builtin.fail")
    journal = tasks[kinds.index("ansible.builtin.command")]
    assert "journalctl" in journal["ansible.builtin.command"]["argv"] and journal["failed_when"] is False


def test_no_key_is_an_argument_of_a_task() -> None:
    for file in ROLE.glob("tasks/*.yml"):
        if file.name != "preflight.yml":
            assert "api_key" not in file.read_text(), file


def test_the_first_error_is_found_with_its_traceback() -> None:
    log = [
        "INFO start",
        "Traceback (most recent call last):",
        *[f'  File "x.py", line {number}' for number in range(30)],
        "RuntimeError: the device is in use",
        "INFO the end",
        *["ERROR: engine dead"] * 50,
    ]
    found = systemd.first_error(log)
    assert found[0] == "Traceback (most recent call last):" and found[-1] == "RuntimeError: the device is in use"
    assert len(found) == systemd.SHOWN
    assert systemd.first_error(["a", "b\x1b[0m"]) == ["a", "b [0m"]


@pytest.fixture
def role(tmp_path: Path) -> Callable[..., str]:
    """Run the role in check mode on this machine, and return what it said."""
    (tmp_path / "play.yml").write_text("- hosts: all\n  gather_facts: false\n  roles: [neuronops.vllm.vllm_server]\n")
    collections = [
        str(CHECKOUT / ".build" / "collections"),
        *[path for path in sys.path if path.endswith("site-packages")],
    ]

    def run(*arguments: str, **options: Any) -> str:
        variables = {f"vllm_server_{name}": option for name, option in options.items() if name != "neuron_stack"}
        variables.update({name: option for name, option in options.items() if name == "neuron_stack"})
        # In a file, as what is secret should be: ansible-playbook itself shows its command line.
        (tmp_path / "variables.json").write_text(json.dumps(variables))
        answer = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                *("-i", "localhost,", "-c", "local", "--check", "-e", f"ansible_python_interpreter={sys.executable}"),
                *("-e", f"@{tmp_path}/variables.json", str(tmp_path / "play.yml"), *arguments),
            ],
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": ":".join(collections), "ANSIBLE_NOCOLOR": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return " ".join((answer.stdout + answer.stderr).split())

    return run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": ""}, "vllm_server_model is not set"),
        ({"model": "/nowhere/at/all"}, "has no folder /nowhere/at/all with a config.json"),
        ({"model": "m", "user": "root"}, "the name of a user other than root"),
        ({"model": "m", "service": "vllm.service"}, "vllm_server_service is"),
        ({"model": "m", "venv": "relative"}, "vllm_server_venv is"),
        ({"model": "m", "served_model_name": "-x"}, "vllm_server_served_model_name is"),
        ({"model": "m", "host": EVERYWHERE}, "needs vllm_server_api_key and vllm_server_expose: true"),
        ({"model": "m", "host": EVERYWHERE, "api_key": "k"}, "needs vllm_server_api_key and vllm_server_expose: true"),
        ({"model": "m", "host": EVERYWHERE, "expose": True}, "needs vllm_server_api_key and vllm_server_expose: true"),
        ({"model": "m", "arguments": ["--por=1"]}, "--por: set vllm_server_port"),
        ({"model": "m", "environment": {"VLLM_API_KEY": "x"}}, "vllm_server_environment has VLLM_API_KEY"),
        ({"model": "m", "environment": "HF_TOKEN=x"}, "vllm_server_environment is a value that is not shown"),
        ({"model": "m", "api_key": "a\nb"}, "vllm_server_api_key is a value that is not shown"),
        ({"model": "m", "api_key": "pässwörd"}, "vllm_server_api_key has a character"),
        ({"model": "m", "api_key": "two words"}, "vllm_server_api_key has a character"),
        ({"model": "m", "port": "0"}, "vllm_server_port must be from 1 to 65535"),
    ],
)
@as_root
def test_what_cannot_be_meant_is_refused_before_anything_is_changed(
    role: Callable[..., str], options: dict[str, Any], words: str
) -> None:
    said = role(**options)
    assert words in said
    assert "changed=0" in said and "failed=1" in said


@pytest.fixture
def model() -> Iterator[Path]:
    """A folder with an odd name and a model in it, that everybody can read: pytest closes its own folders to others."""
    with tempfile.TemporaryDirectory(dir=TEMPORARY) as top:
        folder = Path(top) / "my modèl 100%"
        folder.mkdir()
        (folder / "config.json").write_text('{"max_position_embeddings": 131072}')
        for path in (Path(top), folder):
            path.chmod(0o755)
        yield folder


@as_root
def test_a_model_that_can_be_read_is_taken_and_a_long_context_is_told(role: Callable[..., str], model: Path) -> None:
    said = role(model=str(model))
    assert "failed=0" in said, said
    assert "has a context of 131072 tokens" in said and "Set vllm_server_max_model_len" in said
    assert "has a context of" not in role(model=str(model), max_model_len="4096")


@as_root
def test_a_secret_is_in_no_output_however_much_is_asked_for(role: Callable[..., str], model: Path) -> None:
    secrets = {"api_key": "SECRET-OF-THE-KEY", "environment": {"HF_TOKEN": "SECRET-OF-THE-HUB"}}
    said = role("-vvvv", "--diff", model=str(model), **secrets)
    assert "failed=0" in said and "Start the server" in said
    assert re.findall(r".{0,300}SECRET-OF.{0,100}", said) == []


@as_root
def test_a_model_that_the_user_cannot_read_is_refused(role: Callable[..., str], model: Path) -> None:
    (model / "config.json").chmod(0o600)
    assert "The user vllm cannot read" in role(model=str(model))


@as_root
def test_an_old_vllm_that_cannot_write_beside_the_model_is_refused(role: Callable[..., str], model: Path) -> None:
    said = role(model=str(model), neuron_stack="vllm-0.4.2")
    assert "-split at its first start" in said and "changed=0" in said, said


def test_of_an_account_that_exists_nothing_is_changed() -> None:
    tasks = yaml.safe_load((ROLE / "tasks" / "configure.yml").read_text())
    (account,) = [task for task in tasks if "ansible.builtin.user" in task]
    assert account["when"] == "not _vllm_server_account"
    for entry, expected in ((None, []), (["x", "1001", "1001", "", "/home/alice", "/bin/bash"], None)):
        found = value(
            "_vllm_server_account", {**known(user="alice"), "ansible_facts": {"getent_passwd": {"alice": entry}}}
        )
        assert found == (entry if expected is None else expected)


@pytest.mark.skipif(shutil.which("perl") is None, reason="perl is not installed")
def test_needrestart_is_told_of_this_service_alone() -> None:
    text = value("_vllm_server_needrestart_text", known(service="vllm.v2"))
    program = text + (
        "my ($pattern) = keys %{$nrconf{override_rc}}; print join(',', map { /$pattern/ ? 1 : 0 } "
        "('vllm.v2.service', 'vllmxv2.service', 'other.service', 'vllm.v2xservice'));"
    )
    assert subprocess.check_output(["perl", "-Mstrict", "-we", "our %nrconf;" + program], text=True) == "1,0,0,0"
