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

# The stack of a test that names none.
IN_TREE = "vllm-0.9.2"


def known(**options: Any) -> dict[str, Any]:
    """Return the role's variables with these options."""
    given = {f"vllm_server_{name}": option for name, option in {"model": "m", **options}.items()}
    return {
        **read("vllm_server", "defaults"),
        **read("vllm_server", "vars"),
        "__vllm_server_host": {"neuron_ls": {"cores": 2}, "environments": [{"manifests": MANIFESTS}]},
        "neuron_stack": IN_TREE,
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
        "WARNING 11-27 02:04:19 [_custom_ops.py:20] Failed to import from vllm._C with ModuleNotFoundError()",
        "(EngineCore_DP0 pid=9) WARNING no ImportError: that is as it should be",
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
        variables = {"neuron_stack": options.pop("neuron_stack", IN_TREE)}
        variables.update({f"vllm_server_{name}": option for name, option in options.items()})
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


@pytest.mark.thorough
@as_root
def test_a_model_that_can_be_read_is_taken_and_a_long_context_is_told(role: Callable[..., str], model: Path) -> None:
    said = role(model=str(model))
    assert "failed=0" in said, said
    assert "has a context of 131072 tokens" in said and "Set vllm_server_max_model_len" in said
    assert "has a context of" not in role(model=str(model), max_model_len="4096")


@pytest.mark.thorough
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


# What a vLLM of the in-tree backend is started with, by its hash: a change of it restarts the servers of every fleet.
AS_EVER = {
    "vllm-0.9.2": "9a964e326147caaa",
    "vllm-0.8.5": "e26b1f9e9dae922f",
    "vllm-0.6.4.post1": "05b2bdb232302e3b",
    "vllm-0.4.2": "3e9e93a37e58adfc",
}
NXD = "vllm-0.13.0"


@pytest.mark.parametrize("stack", AS_EVER)
def test_an_in_tree_server_is_started_as_ever(stack: str) -> None:
    options = {"model": "/srv/m", "max_model_len": 2048, "api_key": "k", "environment": {"HF_HOME": "/h"}}
    given = {**known(**options, arguments=["--seed=1"]), "neuron_stack": stack}
    text = "\n".join([value("_vllm_server_unit", given), *value("_vllm_server_environment_lines", given)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == AS_EVER[stack]


def nxd(name: str, files: Any = None, **options: Any) -> Any:
    """Return a variable of the role for a stack of NxD Inference."""
    given = {**known(**{"model": "/srv/m", "max_model_len": 2048, **options}), "neuron_stack": NXD}
    return value(name, {**given, **({"__vllm_server_model_files": {"files": files}} if files is not None else {})})


def artifacts(files: Any = None, **options: Any) -> str:
    (line,) = [
        line
        for line in nxd("_vllm_server_environment_lines", files, **options)
        if line.startswith("NEURON_COMPILED_ARTIFACTS")
    ]
    found = re.fullmatch(r'NEURON_COMPILED_ARTIFACTS="/var/lib/vllm/artifacts/([0-9a-f]{16})"', line)
    assert found, line
    return found[1]


def after(command: list[str], name: str) -> str:
    assert command.count(name) == 1
    return command[command.index(name) + 1]


def test_a_server_of_nxd_inference_is_started_with_what_its_plugin_needs() -> None:
    command = nxd("_vllm_server_command", max_num_seqs=5)
    assert "--device" not in command and "--block-size" not in command
    assert after(command, "--max-model-len") == "2048" and "--no-enable-prefix-caching" in command
    assert after(command, "--num-gpu-blocks-override") == after(command, "--max-num-seqs") == "5"
    config = after(command, "--additional-config")
    assert config == '{"override_neuron_config":{"on_device_sampling_config":null}}'
    more = {"override_neuron_config": {"enable_bucketing": False}, "max_prompt_length": 512}
    config = after(nxd("_vllm_server_command", additional_config=more), "--additional-config")
    expected = '{"enable_bucketing":false,"on_device_sampling_config":null}'
    assert config == f'{{"max_prompt_length":512,"override_neuron_config":{expected}}}'


def test_what_was_compiled_has_a_folder_of_the_service_for_each_configuration() -> None:
    name = artifacts()
    assert setting(nxd("_vllm_server_unit"), "StateDirectory") == [f"vllm vllm/artifacts vllm/artifacts/{name}"]
    assert artifacts(port=9000, served_model_name="other", api_key="k", environment={"HF_TOKEN": "x"}) == name
    changed: list[dict[str, Any]] = [
        {"model": "/srv/n"},
        {"tensor_parallel_size": 1},
        {"max_model_len": 4096},
        {"max_num_seqs": 4},
        {"arguments": ["--dtype=float32"]},
        {"additional_config": {"max_prompt_length": 512}},
        {"environment": {"NEURON_CC_FLAGS": "-O1"}},
        {"neuron_stack_overrides": {"python_packages": {"nki": "0.2.1"}}},
    ]
    others = [artifacts(**options) for options in changed[:-1]]
    given = {**known(model="/srv/m", max_model_len=2048), "neuron_stack": NXD, **changed[-1]}
    others.append(value("_vllm_server_artifacts", given))
    assert len({name, *others}) == len(changed) + 1


def test_a_model_that_was_replaced_in_its_folder_is_compiled_again() -> None:
    weights = {"path": "/srv/m/model.safetensors", "size": 10, "mtime": 1.5, "isdir": False}
    config = {"path": "/srv/m/config.json", "size": 1, "mtime": 1.0, "isdir": False}
    name = artifacts([weights, config])
    assert artifacts([config, {**weights, "atime": 7}, {"path": "/srv/m/x", "isdir": True}]) == name
    for change in ({"mtime": 2.5}, {"size": 11}, {"path": "/srv/m/other.safetensors"}):
        assert artifacts([config, {**weights, **change}]) != name


def test_the_cores_that_are_named_are_those_that_share_the_model() -> None:
    for stack in (NXD, "vllm-0.9.2"):
        given = {**known(max_model_len=2048, visible_cores="4-7"), "neuron_stack": stack}
        assert 'NEURON_RT_VISIBLE_CORES="4-7"' in value("_vllm_server_environment_lines", given)
        assert after(value("_vllm_server_command", given), "--tensor-parallel-size") == "4"
    assert after(value("_vllm_server_command", known()), "--tensor-parallel-size") == "2"


@pytest.mark.parametrize(
    ("text", "cores"),
    [("", []), ("0", [0]), ("3", [3]), ("0-7", list(range(8))), ("8-9", [8, 9]), ("0,1,2", [0, 1, 2]), ("5,1", [5, 1])],
)
def test_cores_are_a_range_or_a_list(text: str, cores: list[int]) -> None:
    assert server.visible_cores(text) == cores


@pytest.mark.parametrize("text", ["0-3,8", "7-0", "0,0", "0 1", "0, 1", "-1", "0-", "a", "0-3-5", "0-99999", "1\n"])
def test_cores_are_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        server.visible_cores(text)


@pytest.mark.parametrize(
    "argument",
    [
        *server.NXD_INFERENCE,
        "--enable-prefix",
        "--additional_config={}",
        "--additional-config.override_neuron_config.x=1",
    ],
)
def test_an_argument_that_the_plugin_is_given_by_the_role_is_refused(argument: str) -> None:
    assert len(server.refusals([argument], backend="nxd_inference")) == 1
    if argument != "--enable-prefix":
        assert server.refusals([argument.replace("--enable-prefix", "--no-enable-prefix")]) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_model_len": 0}, "vllm_server_max_model_len is not set, and the server does not start without"),
        ({"additional_config": {"override-neuron-config": {}}}, "does not read: write override_neuron_config"),
        (
            {"additional_config": {"override_neuron_config": {"router_config": [{"act-fn": 1}]}}},
            "has override_neuron_config.router_config.act-fn, which the plugin does not read: write act_fn",
        ),
        (
            {"additional_config": {"override_neuron_config": {"on_device_sampling_config": {"dynamic": True}}}},
            "get each other's sampling parameters; leave it out. Where all requests have the same ones, set it in "
            "neuron_stack_overrides.server.additional_config",
        ),
        (
            {"additional_config": {"override_neuron_config": None}},
            "override_neuron_config, which should be a dictionary",
        ),
        ({"additional_config": {"override_neuron_config": {"is_prefix_caching": True}}}, "issue 1304"),
        ({"additional_config": {"override_neuron_config": {"seq_len": 9}}}, "set vllm_server_max_model_len"),
        (
            {"environment": {"NEURON_ON_DEVICE_SAMPLING_DISABLED": "1"}},
            "ends with it at its start (vllm-neuron issue 29)",
        ),
        ({"environment": {"DISABLE_NEURON_CUSTOM_SCHEDULER": "1"}}, "vLLM's own scheduler prefills in chunks"),
        ({"environment": {"NEURON_COMPILED_ARTIFACTS": "/x"}}, "a folder of its own"),
        ({"environment": {"NEURON_RT_VISIBLE_CORES": "0"}}, "set vllm_server_visible_cores"),
        ({"visible_cores": "0-3,5"}, "vllm_server_visible_cores is '0-3,5', and should be one range"),
        ({"visible_cores": "0-3", "tensor_parallel_size": 8}, "is 8, and vllm_server_visible_cores names 4"),
    ],
)
def test_what_ends_badly_with_nxd_inference_is_refused(options: dict[str, Any], words: str) -> None:
    (refusal,) = nxd("_vllm_server_settings", **options)["refusals"]
    assert words in refusal


def test_what_is_well_with_nxd_inference_is_taken() -> None:
    overrides = {"enable_bucketing": True, "on_device_sampling_config": None}
    options = {"additional_config": {"override_neuron_config": overrides}, "environment": {"NEURON_CC_FLAGS": "-O1"}}
    assert nxd("_vllm_server_settings", visible_cores="0-3", tensor_parallel_size=2, **options)["refusals"] == []
    sampling = {"override_neuron_config": {"on_device_sampling_config": {"dynamic": True}}}
    given = {**known(max_model_len=8), "neuron_stack": NXD}
    given["neuron_stack_overrides"] = {"server": {"additional_config": sampling}}
    command = value("_vllm_server_command", given)
    assert json.loads(after(command, "--additional-config")) == sampling


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"additional_config": {"max_prompt_length": 1}}, "and no server of the backend in_tree reads it"),
        ({"visible_cores": "x"}, "should be one range"),
        (
            {"visible_cores": "0", "environment": {"NEURON_RT_VISIBLE_CORES": "0"}},
            "for which vllm_server_visible_cores",
        ),
    ],
)
def test_what_an_in_tree_server_cannot_take_is_refused(options: dict[str, Any], words: str) -> None:
    (refusal,) = value("_vllm_server_settings", known(**options))["refusals"]
    assert words in refusal
    theirs = known(environment={"NEURON_RT_VISIBLE_CORES": "0", "NEURON_ON_DEVICE_SAMPLING_DISABLED": "1"})
    assert value("_vllm_server_settings", theirs)["refusals"] == []


@pytest.mark.thorough
@as_root
def test_a_server_of_nxd_inference_is_checked_and_started(role: Callable[..., str], model: Path) -> None:
    said = role(model=str(model), neuron_stack=NXD)
    assert "vllm_server_max_model_len is not set" in said and "changed=0" in said and "failed=1" in said
    said = role("--diff", model=str(model), neuron_stack=NXD, max_model_len="2048")
    assert "failed=0" in said and "NEURON_COMPILED_ARTIFACTS=(not shown)" in said, said
    name = re.search(r"StateDirectory=vllm vllm/artifacts vllm/artifacts/([0-9a-f]{16}) ", said)
    assert name
    (model / "config.json").write_text("{}")
    said = role("--diff", model=str(model), neuron_stack=NXD, max_model_len="2048")
    assert "StateDirectory=vllm vllm/artifacts vllm/artifacts/" in said and name[1] not in said


OPTIMUM = "optimum-0.4.5"


def optimum(name: str, **options: Any) -> Any:
    """Return a variable of the role for the stack of optimum-neuron."""
    given = known(**{"model": "/srv/m", "max_model_len": 2048, **options})
    return value(name, {**given, "role_path": str(ROLE), "neuron_stack": OPTIMUM})


def test_a_server_of_optimum_neuron_is_started_with_what_its_model_was_exported_with() -> None:
    export = optimum("_vllm_server_export", max_num_seqs=5)
    folder = export["folder"]
    assert re.fullmatch("/var/lib/vllm/artifacts/[0-9a-f]{16}", folder)
    assert export == {
        "model": "/srv/m",
        "folder": folder,
        "max_model_len": 2048,
        "max_num_seqs": 5,
        "tensor_parallel_size": 2,
    }
    command = optimum("_vllm_server_command", max_num_seqs=5)
    arguments = ("--model", "--max-model-len", "--max-num-seqs", "--tensor-parallel-size")
    assert [after(command, name) for name in arguments] == [folder, "2048", "5", "2"]
    assert after(command, "--served-model-name") == "/srv/m"
    assert not {"--block-size", "--additional-config", "--num-gpu-blocks-override"} & set(command)
    text = optimum("_vllm_server_unit", max_num_seqs=5)
    # A folder that systemd made would be taken for an export.
    assert setting(text, "StateDirectory") == ["vllm vllm/artifacts"]
    # By this what nothing goes back to is found and removed.
    assert f'NEURON_COMPILED_ARTIFACTS="{folder}"' in optimum("_vllm_server_environment_lines", max_num_seqs=5)


def test_another_configuration_is_another_export() -> None:
    name = optimum("_vllm_server_artifacts")
    same = {"port": 9000, "arguments": ["--disable-log-requests"], "environment": {"HF_TOKEN": "x"}}
    assert optimum("_vllm_server_artifacts", **same) == name
    changed: list[dict[str, Any]] = [
        {"model": "/srv/n"},
        {"tensor_parallel_size": 1},
        {"max_model_len": 4096},
        {"max_num_seqs": 4},
        {"environment": {"NEURON_CC_FLAGS": "-O1"}},
    ]
    assert len({name, *(optimum("_vllm_server_artifacts", **options) for options in changed)}) == len(changed) + 1


def test_an_export_runs_as_the_services_user_with_the_releases_python_and_without_its_secrets() -> None:
    given = {"HF_TOKEN": "hf_secret", "NEURON_CC_FLAGS": "-O1"}
    options = {
        "environment": given,
        "api_key": "key-secret",
        "release": "/opt/one",
        "user": "serving",
        "model": "/srv/$m",
    }
    command = optimum("_vllm_server_export_command", **options)
    before, python = command[: command.index("--")], command[command.index("--") + 1 :]
    assert before[0] == "systemd-run" and {"--wait", "--pipe", "--property=User=serving"} <= set(before)
    assert "--property=StateDirectory=vllm vllm/artifacts" in before and "--property=UMask=0077" in before
    variables = dict(entry.partition("=")[2].split("=", 1) for entry in before if entry.startswith("--setenv="))
    assert variables["HF_HUB_OFFLINE"] == variables["TRANSFORMERS_OFFLINE"] == "1"
    assert variables["NEURON_CC_FLAGS"] == "-O1" and variables["HOME"] == "/var/lib/vllm"
    assert variables["PATH"].startswith("/opt/one/bin:/opt/aws/neuron/bin:")
    assert "secret" not in " ".join(command)
    assert python[:3] == ["/opt/one/bin/python", "-I", "-c"] and len(python) == 5
    assert "--property=PrivateTmp=true" in before and "BindReadOnlyPaths" not in " ".join(before)
    temporary = optimum("_vllm_server_export_command", model=f"{TEMPORARY}/a b%")
    assert '--property=BindReadOnlyPaths="-/tmp/a b%"' in temporary
    assert json.loads(python[4].replace("$$", "$"))["model"] == "/srv/$m" and "/srv/$$m" in python[4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_model_len": 0}, "vllm_server_max_model_len is not set, and the model is exported for it"),
        ({"model": "owner/name"}, "exported without any network: copy it to the host"),
        ({"additional_config": {"x": 1}}, "and no server of the backend optimum_neuron reads it"),
        ({"visible_cores": "0,1"}, "takes a list for one core: set it to a range"),
        *(({"environment": {name: "x"}}, words) for name, words in server.OPTIMUM_VARIABLES.items()),
    ],
)
def test_what_ends_badly_with_optimum_neuron_is_refused(options: dict[str, Any], words: str) -> None:
    (refusal,) = optimum("_vllm_server_settings", **options)["refusals"]
    assert words in refusal
    well = {"visible_cores": "0-1", "environment": {"NEURON_CC_FLAGS": "-O1"}}
    assert optimum("_vllm_server_settings", **well)["refusals"] == []


@pytest.mark.parametrize("argument", [*server.OPTIMUM_NEURON, "--enable-prefix", "--num-gpu-blocks-override=9"])
def test_an_argument_that_optimum_neuron_does_not_take_is_refused(argument: str) -> None:
    assert len(server.refusals([argument], backend="optimum_neuron")) == 1
    assert server.refusals(["--tokenizer=/srv/t", "--no-enable-log-requests"], backend="optimum_neuron") == []


@pytest.mark.thorough
@as_root
def test_a_server_of_optimum_neuron_is_checked_and_started(role: Callable[..., str], model: Path) -> None:
    said = role("--diff", model=str(model), neuron_stack=OPTIMUM, max_model_len="2048")
    exported = re.search(r"would be exported on localhost into (/var/lib/vllm/artifacts/[0-9a-f]{16})", said)
    assert exported and "failed=0" in said, said
    assert f'"--model" "{exported[1]}"' in said or f"--model {exported[1]} " in said, said
    said = role(model=str(model), neuron_stack=OPTIMUM)
    assert "vllm_server_max_model_len is not set" in said and "changed=0" in said and "failed=1" in said


def test_cores_that_the_host_has_not_are_refused(role: Callable[..., str], tmp_path: Path) -> None:
    host = {"neuron_ls": {"cores": 2}, "environments": [{"manifests": MANIFESTS, "path": "/opt/one"}]}
    tasks = [{"ansible.builtin.import_role": {"name": "neuronops.vllm.vllm_server", "tasks_from": "check_host"}}]
    play = [{"hosts": "all", "gather_facts": False, "vars": {"__vllm_server_host": host}, "tasks": tasks}]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    said = role(visible_cores="1-2")
    assert "has the NeuronCores 0 to 1; vllm_server_visible_cores is 1-2. Nothing was changed." in said
    assert "failed=0" in role(visible_cores="0-1") and "failed=0" in role()
