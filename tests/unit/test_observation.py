# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers is used where every part of it has its form, and decides on nothing but what it is about."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.neuronops.vllm.plugins.action import python_packages
from ansible_collections.neuronops.vllm.plugins.module_utils import forms, host, neuron_ls
from ansible_collections.neuronops.vllm.plugins.modules import neuron_info
from ansible_collections.neuronops.vllm.plugins.plugin_utils import observation

from tests.answers import ARGUMENTS, DIGEST, GOOD, VENV

CHECKOUT = Path(__file__).resolve().parents[2]
JINJA = "{{ lookup('pipe', 'touch owned') }}"
MISSING = object()


def result(module: str, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = observation.result(module, answer, "host1", ARGUMENTS.get(module, {}))
    return found


def changed(module: str, path: str, value: Any) -> dict[str, Any]:
    """Return a good answer with another value at a path such as `driver/in_use_by/0/pid`, or without it."""
    answer = copy.deepcopy(GOOD[module])
    place: Any = answer
    *way, last = [int(part) if part.isdigit() else part for part in path.split("|")]
    for part in way:
        place = place[part]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return answer


def documented(module: str) -> dict[str, Any]:
    plugin = importlib.import_module(f"ansible_collections.neuronops.vllm.plugins.modules.{module}")
    found: dict[str, Any] = yaml.safe_load(plugin.RETURN)
    return found


def compare(fields: dict[str, Any], value: dict[str, Any], where: str) -> None:
    """Compare the keys of an answer with what RETURN says of them."""
    assert sorted(value) == sorted(fields), where
    for name, field in fields.items():
        if "contains" in field:
            for entry in value[name] if field["type"] == "list" else [value[name]]:
                compare(field["contains"], entry, f"{where}.{name}")


@pytest.mark.parametrize("module", sorted(observation.ANSWERS))
def test_the_list_of_keys_is_that_of_the_documentation(module: str) -> None:
    answer = {name: value for name, value in GOOD[module].items() if name not in ("changed", "diff")}
    assert sorted(observation.ANSWERS[module]) == sorted(answer)
    compare(documented(module), answer, module)


def test_every_module_that_answers_a_host_is_checked() -> None:
    modules = {path.stem for path in (CHECKOUT / "plugins" / "modules").glob("*.py")}
    # These two answer their own action, which compares it with what was wanted; the others are none on a host.
    assert modules - set(observation.ANSWERS) == {
        "fleet_instances",
        "options",
        "python_lock",
        "target_groups",
        "vllm_wheel",
    }
    for module in observation.ANSWERS:
        action = importlib.import_module(f"ansible_collections.neuronops.vllm.plugins.action.{module}")
        assert issubclass(action.ActionModule, observation.CheckedAction) and module == action.ActionModule.MODULE


@pytest.mark.parametrize("module", sorted(observation.ANSWERS))
def test_a_good_answer_passes_as_it_is(module: str) -> None:
    assert result(module, GOOD[module]) == GOOD[module]


def test_what_the_module_observes_of_a_bare_host_passes(tmp_path: Path) -> None:
    options = {
        "environments": [str(tmp_path / "none")],
        "services": ["x"],
        "files": ["/x"],
        "links": [],
        "repository": None,
    }
    answer = neuron_info.observe(lambda _command: (127, "", "not found"), options, "6.8.0-1021-aws", str(tmp_path))
    found = observation.result("neuron_info", {"changed": False, **answer}, "host1", options)
    assert found == {"changed": False, **answer}


@pytest.mark.parametrize("module", sorted(observation.ANSWERS))
def test_nothing_else_of_an_answer_is_returned(module: str) -> None:
    more = {
        "add_host": {"host_name": "evil", "groups": ["neuron"]},
        "add_group": "evil",
        "ansible_facts": {"vllm_server_host": "0.0.0.0"},  # noqa: S104 - nothing listens there
        "_ansible_no_log": False,
        "_ansible_item_label": "x",
        "_ansible_delegated_vars": {"x": 1},
        "invocation": {"module_args": {"a": "b"}},
        "deprecations": [{"msg": "x"}],
        "exception": "x",
        "stdout": "x",
        "results": [1],
        "ansible_job_id": "1",
        "rc": 1,
        "skipped": True,
        "attempts": 1,
    }
    assert result(module, {**GOOD[module], **more}) == GOOD[module]
    failed = result(module, {**GOOD[module], **more, "failed": True, "msg": "no"})
    assert failed == {"failed": True, "changed": False, "msg": "no"}
    unreachable = result(module, {**more, "unreachable": True, "msg": "gone"})
    assert unreachable == {"unreachable": True, "msg": "gone"}


HOSTILE: list[tuple[str, Any, str]] = [
    # path with |, value, what the message says
    ("kernel", MISSING, "it lacks kernel"),
    ("root", "yes", "root is 'yes', and should be true or false"),
    ("root", 1, "root is 1, and should be true or false"),
    ("kernel", None, "kernel is None, and should be a dictionary"),
    ("kernel", [], "kernel is [], and should be a dictionary"),
    ("kernel|extra", 1, "kernel has the unknown key 'extra'"),
    ("kernel|headers", MISSING, "kernel lacks headers"),
    ("kernel|release", JINJA, "kernel.release is"),
    ("kernel|release", "6.8.0-1021-aws\n", "kernel.release is '6.8.0-1021-aws\\n', and that is no kernel release"),
    ("kernel|newest", "6.8.0/../../etc", "kernel.newest is"),
    ("kernel|newest", "6" * 100000, "kernel.newest is"),
    ("hardware|devices|0|family", "gpu", "hardware.devices[0].family is 'gpu', and not one of inf1, inf2, trn1, trn2"),
    ("hardware|devices|0|address", "0000:00:1f.0; id", "hardware.devices[0].address is"),
    ("hardware|devices", {"a": 1}, "hardware.devices is {'a': 1}, and should be a list"),
    ("hardware|devices", [{}] * 10001, "hardware.devices is"),
    ("driver|installed", "2.21 && id", "driver.installed is"),
    ("driver|loaded", "", "driver.loaded is"),
    ("driver|references", True, "driver.references is True"),
    ("driver|references", -1, "driver.references is -1"),
    ("driver|in_use_by|0|pid", "321", "driver.in_use_by[0].pid is '321'"),
    ("driver|in_use_by|0|pid", 1.5, "driver.in_use_by[0].pid is 1.5"),
    ("driver|in_use_by|0|command", {"a": "b"}, "driver.in_use_by[0].command is {'a': 'b'}, and should be a text"),
    ("neuron_ls|path", "/opt/../bin/neuron-ls", "neuron_ls.path is"),
    ("neuron_ls|path", "neuron-ls", "neuron_ls.path is"),
    ("neuron_ls|cores", 10**20, "neuron_ls.cores is 100000000000000000000"),
    ("neuron_ls|cores", "2 --trust-remote-code", "neuron_ls.cores is"),
    ("neuron_ls|devices|0|core_ids|0", None, "neuron_ls.devices[0].core_ids[0] is None"),
    ("neuron_ls|devices|0|instance_type", JINJA, "neuron_ls.devices[0].instance_type is"),
    ("packages|aws-neuronx-dkms|state", "installed ok", "packages['aws-neuronx-dkms'].state is"),
    ("packages|-o APT::Update=x", {"version": "1", "held": False, "state": "installed"}, "a key of packages is"),
    ("environments", [], "environments are not"),
    ("environments|0|release", "vllm", "environments[0].release is 'vllm', and should be a dictionary"),
    ("environments|0|release|id", "../one", "environments[0].release.id is '../one'"),
    ("environments|0|release|schema", 2, "environments[0].release.schema has the schema 2"),
    ("environments|0|release|completed_at", "now", "environments[0].release.completed_at is 'now'"),
    ("environments|0|release|layers", ["a/b"], "environments[0].release.layers[0] is 'a/b'"),
    ("environments|0|release|stack", MISSING, "environments[0].release lacks stack"),
    ("environments|0|path", "/elsewhere", "environments are not"),
    ("environments|1|path", "/opt/neuronops/../x", "environments are not"),
    ("environments|0|real_path", "/opt/../etc", "environments[0].real_path is"),
    ("environments|0|real_path", "/opt/./etc", "environments[0].real_path is"),
    ("environments|0|python|executable", "/tmp/x\n!id", "environments[0].python.executable is"),  # noqa: S108 - of no file
    ("environments|0|python|version", "3.10.12; id", "environments[0].python.version is"),
    ("environments|0|python|version", "3.10", "environments[0].python.version is"),
    ("environments|0|packages|torch", "2.5.1 --index-url http://x", "environments[0].packages['torch'] is"),
    ("environments|0|packages|-r x", "1", "a key of environments[0].packages is"),
    ("environments|0|packages", {f"p{n}": "1" for n in range(10001)}, "environments[0].packages is"),
    ("environments|0|manifests|../x", {}, "a key of environments[0].manifests is"),
    ("environments|0|manifests|vllm|packages|vllm", "1 @ http://x", "manifest of 'vllm' is"),
    ("environments|0|manifests|vllm|packages|a b", "1", "manifest of 'vllm' is"),
    ("environments|0|manifests|vllm|files|relative", DIGEST, "manifest of 'vllm' names 'relative'"),
    ("environments|0|manifests|vllm|inputs", ["a"], "the manifest of 'vllm' has no texts where they are due"),
    ("environments|0|manifests|vllm|inputs", {"a": 1}, "inputs of the manifest of 'vllm' is"),
    ("environments|0|changed_files|0", "pip.conf", "environments[0].changed_files[0] names 'pip.conf'"),
    ("environments|0|ignored", "text", "environments[0].ignored is 'text', and should be a list"),
    ("services|0|name", "other.service", "services are not"),
    ("services", [], "services are not"),
    ("services|0|active_state", "active\n", "services[0].active_state is"),
    ("services|0|configuration", JINJA, "services[0].configuration is"),
    ("services|0|main_pid", 0, "services[0].main_pid is 0"),
    ("services|0|ours", "yes", "services[0].ours is 'yes'"),
    ("activations|0|service", "other", "activations are not of"),
    ("activations|0|release", "/opt/../x", "activations[0].release is"),
    ("activations|0|link", "opt", "activations[0].link is"),
    ("activations|0|state", "good", "activations[0].state is"),
    ("activations|0|at", "now", "activations[0].at is"),
    ("activations|0|proof|pid", 0, "activations[0].proof.pid is 0"),
    ("activations|0|reason", "a\x1b[2J", "activations[0].reason is"),
    ("activations|0|add_host", {}, "activations[0] has the unknown key 'add_host'"),
    (f"links|{VENV}|kind", "socket", f"links['{VENV}'].kind is 'socket'"),
    (f"links|{VENV}", MISSING, "links are not"),
    ("files|/etc/profile.d/aws-neuron.sh", MISSING, "files are not"),
    ("files|/etc/shadow", None, "files are not"),
    ("files|/etc/default/aws-neuron", DIGEST + "\n", "files['/etc/default/aws-neuron'] is"),
    ("repository", None, "repository is not what was asked for"),
    ("repository|key|fingerprint", "0" * 39, "repository.key.fingerprint is"),
    ("repository|key|secret", "x", "repository.key has the unknown key 'secret'"),
    ("repository|reasons", [1], "repository.reasons[0] is 1, and should be a text"),
    ("record|packages|0", "-o=x", "record.packages is"),
    ("record|packages|0", "a b", "record.packages is"),
    ("record|add_host", {}, "record has the unknown key 'add_host'"),
    ("changed", "false", "changed is 'false', and should be true or false"),
    ("diff", {"before": 1, "after": ""}, "diff.before is 1"),
    ("diff", [{"before": "", "after": "", "x": 1}], "diff[0] has the unknown key 'x'"),
]


@pytest.mark.parametrize(
    ("path", "value", "says"), HOSTILE, ids=[f"{row[0]}-{number}" for number, row in enumerate(HOSTILE)]
)
def test_an_answer_of_another_form_fails_the_task(path: str, value: Any, says: str) -> None:
    found = result("neuron_info", changed("neuron_info", path, value))
    assert sorted(found) == ["changed", "failed", "msg"] and found["failed"] is True
    assert found["msg"].startswith("What host1 answered to neuron_info is not used: ")
    assert says in found["msg"]
    assert len(found["msg"]) < 700 and found["msg"].isprintable()


@pytest.mark.parametrize(
    ("module", "path", "value"),
    [
        ("neuron_repository", "paths|0", "../../etc/shadow"),
        ("neuron_repository", "backups|0", "/var/lib/../x"),
        ("neuron_repository", "key|expires", "soon"),
        ("neuron_repository", "reasons", MISSING),
        ("managed_python", "release", "3.12"),
        ("managed_python", "reason", MISSING),
        ("python_venv", "reason", ["x"]),
        ("python_venv", "reason", MISSING),
        ("pip_configuration", f"files|{VENV}/pip.conf", "x"),
        ("pip_configuration", "files|pip.conf", DIGEST),
        ("pip_configuration", "files", [DIGEST]),
        ("jupyter_kernel", "files|/a\nb", DIGEST),
        ("python_packages", "packages|torch", "2.5.1\n--index-url=http://x"),
        ("python_packages", "packages", MISSING),
        ("python_packages", "foreign|0", JINJA),
        ("vllm_activation", "release", "opt/x"),
        ("vllm_activation", "number", 0),
        ("vllm_activation", "did", [1]),
        ("vllm_activation", "since", "now"),
        ("vllm_answer", "state", "fine"),
        ("vllm_answer", "address", "127.0.0.1/x"),
        ("vllm_answer", "port", 0),
        ("vllm_answer", "configuration", JINJA),
        ("vllm_answer", "listener|add_host", {}),
        ("vllm_answer", "restarts", MISSING),
    ],
)
def test_other_modules_are_checked_in_the_same_way(module: str, path: str, value: Any) -> None:
    found = result(module, changed(module, path, value))
    assert found["failed"] is True
    assert found["msg"].startswith(f"What host1 answered to {module} is not used: ")
    assert found["msg"].isprintable()


FREE = "a\x1b[2J\x07\u202eb\r\n\x9b\ud800\u2028" + JINJA


def test_a_text_that_may_say_anything_is_cut_and_does_nothing_to_a_terminal() -> None:
    answer = changed("neuron_info", "driver|in_use_by|0|command", FREE + "x" * 100000)
    answer["neuron_ls"]["error"] = FREE
    found = result("neuron_info", answer)
    assert found["driver"]["in_use_by"][0]["command"].startswith("a?[2J??b?????" + JINJA)
    assert len(found["driver"]["in_use_by"][0]["command"]) == observation.LONGEST_LINE + len("...")
    assert found["neuron_ls"]["error"] == "a?[2J??b?????" + JINJA
    failed = result("neuron_info", {"failed": True, "msg": FREE + "x" * 100000, "warnings": [FREE, {"a": 1}, 3]})
    assert failed["msg"].startswith("a?[2J??b?\n???" + JINJA) and len(failed["msg"]) < 6100
    assert failed["warnings"] == ["a?[2J??b?????" + JINJA]
    assert "gave no reason" in result("neuron_info", {"failed": True, "msg": {"a": 1}})["msg"]


def test_what_no_module_wrote_is_shown() -> None:
    answer = {"failed": True, "msg": "MODULE FAILURE", "module_stderr": "sudo: a password is required", "rc": 1}
    assert result("python_venv", answer)["msg"] == "MODULE FAILURE\nsudo: a password is required"


def test_nesting_without_end_is_a_sentence() -> None:
    deep: Any = []
    for _ in range(100000):
        deep = [deep]
    answer = {**GOOD["python_venv"], "diff": deep}
    assert "it is nested too deeply" in result("python_venv", answer)["msg"]


@pytest.mark.parametrize(
    ("asked", "paths", "right"),
    [
        (["/a", "/b"], ["/a", "/b"], True),
        (["/a", "/b"], ["/b", "/a"], False),
        (["/a"], ["/a", "/b"], False),
        (["/r/*"], [], True),
        (["/r/*", "/a"], ["/r/1", "/r/2", "/a"], True),
        (["/r/*"], ["/etc/x"], False),
        (["/r/*"], ["/r/.."], False),
        (["/r/*"], ["/r/1/x"], False),
        (["/r/*"], ["/r/../etc"], False),
        (["/r/*/v"], ["/r/1/v"], True),
        (["~/v"], ["/root/v"], True),
        (["$HOME/v"], ["v"], False),
        (["~/v", "/opt/b"], ["/root/v", "/opt/b"], True),
        (["~/v", "/opt/b"], [], False),
        (["~/v", "/opt/b"], ["/root/v", "/etc"], False),
        (["~/v"], ["/root/../etc"], False),
        (["~/v/*"], ["/root/v/1", "/root/v/2"], True),
        ("/a,/b", ["/a", "/b"], True),
        (None, [], True),
    ],
)
def test_an_observation_is_about_what_was_asked(asked: Any, paths: list[str], right: bool) -> None:
    answer = copy.deepcopy(GOOD["neuron_info"])
    answer["environments"] = [{**answer["environments"][0], "path": path} for path in paths]
    found = observation.result("neuron_info", answer, "host1", {**ARGUMENTS["neuron_info"], "environments": asked})
    assert ("failed" not in found) is right


def test_files_and_services_are_those_asked_for_in_any_spelling() -> None:
    answer = {
        **GOOD["neuron_info"],
        "files": {"/b": None, "/a[1]": None},
        "environments": [],
        "services": [],
        "links": {},
        "activations": [],
    }
    asked = {"repository": {}, "files": ["/a[1]", "/b", "/b"], "services": ""}
    assert observation.result("neuron_info", {**answer, "repository": None}, "host1", asked)["files"] == answer["files"]
    assert observation.result("neuron_info", {**answer, "repository": None}, "host1", {"files": ["/b"]})["failed"]


def test_no_role_uses_a_path_that_a_host_says() -> None:
    files = [path for path in (CHECKOUT / "roles").rglob("*") if path.suffix in (".yml", ".j2")]
    assert len(files) > 40
    said = re.compile(r"[.](executable|real_path|executable_real_path|results_file|backups)\b(?!:)")
    assert [f"{path}: {found[0]}" for path in files for found in said.finditer(path.read_text())] == []


def test_a_job_is_named_by_its_number_and_no_path_of_the_host() -> None:
    assert python_packages.job_file("~/.ansible_async", "j12.34") == "~/.ansible_async/j12.34"
    assert python_packages.job_file("/srv/a b", "j12.34") == "'/srv/a b'/j12.34"
    for job in ("../x", "/etc/shadow", "a b", "$(id)", "", None, 3):
        with pytest.raises(forms.FormError, match="the number of its job"):
            python_packages.job_file("~/.ansible_async", job)


@pytest.mark.parametrize(
    "changes",
    [{"nc_count": "x"}, {"nc_count": 10**9}, {"neuron_device": None}, {"neuroncore_ids": ["a"]}, {"memory_size": "1"}],
)
def test_an_answer_of_neuron_ls_without_numbers_is_none(changes: dict[str, Any]) -> None:
    device = {"neuron_device": 0, "bdf": "00:1e.0", "nc_count": 2, "memory_size": 1, "neuron_processes": []}
    assert neuron_ls.parse(json.dumps([device]))[0]["address"] == "0000:00:1e.0"
    with pytest.raises(ValueError, match="should be"):
        neuron_ls.parse(json.dumps([{**device, **changes}]))


@pytest.mark.parametrize("content", ["[]", '{"packages": ["a b"], "stack": "x"}', '{"packages": []}', "[" * 100000])
def test_a_record_that_is_not_understood_counts_as_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / host.RECORD.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert host.record(str(tmp_path)) is None
    file.write_text(json.dumps(GOOD["neuron_info"]["record"]))
    assert host.record(str(tmp_path)) == GOOD["neuron_info"]["record"]


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Observe
      neuronops.vllm.neuron_info: {arguments}
      register: answer
      ignore_errors: true  # how it failed is what the test looks at
    - name: Record a part of it
      ansible.builtin.set_fact:
        part: "{{{{ answer.neuron_ls.error | default('') }}}}"
    - name: Write what is there
      ansible.builtin.copy:
        content: "{{{{ {{'answer': answer, 'part': part, 'said': [part, answer] | string, 'hosts': groups.all,
          'fact': vllm_server_host | default(''), 'facts': ansible_facts.keys() | list}} | to_json }}}}"
        dest: "{{{{ playbook_dir }}}}/{{{{ inventory_hostname }}}}.json"
        mode: "0600"
      vars: {{ansible_python_interpreter: {python}}}
- hosts: neuron
  gather_facts: false
  tasks:
    - name: Run on a host that another one named
      ansible.builtin.debug:
        msg: WAS INJECTED
"""


def test_a_host_that_answers_anything_decides_on_nothing(tmp_path: Path) -> None:
    """Through ansible-playbook: hosts whose Python prints what it likes, whatever it is asked to run."""
    good = {**GOOD["neuron_info"], "invocation": {}}
    injected = {
        "add_host": {"host_name": "evil", "groups": ["neuron"]},
        "ansible_facts": {"vllm_server_host": "everywhere", "discovered_interpreter_python": "/evil"},
        "_ansible_item_label": "x",
        "_ansible_no_log": True,
    }
    answers: dict[str, Any] = {
        "good": good,
        "jinja": changed("neuron_info", "neuron_ls|error", JINJA),
        "inner": changed("neuron_info", "kernel|release", JINJA),
        "injected": {**good, **injected},
        "refused": {"failed": True, "msg": JINJA, **injected},
        "nothing": {},
        "list": [1, 2],
        "text": "nonsense \x1b[2J",
        "huge": changed("neuron_info", "driver|in_use_by|0|command", "x" * 1000000),
        "tagged": changed("neuron_info", "neuron_ls|error", {"__ansible_type": "TrustedAsTemplate", "value": JINJA}),
        "unsafe": changed("neuron_info", "neuron_ls|error", {"__ansible_unsafe": JINJA}),
    }
    inventory = []
    for name, answer in answers.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "answer").write_text(answer if isinstance(answer, str) else json.dumps(answer))
        (folder / "python").write_text(f"#!/bin/sh\ncat {folder}/answer\n")
        (folder / "python").chmod(0o755)
        inventory.append(f"{name} ansible_python_interpreter={folder}/python\n")
    (tmp_path / "hosts").write_text("".join(inventory))
    (tmp_path / "play.yml").write_text(
        PLAY.format(arguments=json.dumps(ARGUMENTS["neuron_info"]), python=sys.executable)
    )
    collections = [str(CHECKOUT / ".build" / "collections"), *[p for p in sys.path if p.endswith("site-packages")]]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts", "-c", "local", "play.yml"],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_COLLECTIONS_PATH": ":".join(collections),
            "ANSIBLE_INJECT_FACT_VARS": "true",
            "ANSIBLE_PIPELINING": "false",
            "ANSIBLE_NOCOLOR": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in answers}
    assert not (tmp_path / "owned").exists()
    assert "WAS INJECTED" not in said and "Traceback" not in said
    for name, record in found.items():
        assert record["hosts"] == list(answers), name
        assert record["fact"] == "" and "vllm_server_host" not in record["facts"], name
        known = {*GOOD["neuron_info"], "failed", "msg", "warnings", "exception"}
        assert set(record["answer"]) <= known, name
        assert record["answer"]["failed"] is (name not in ("good", "jinja", "injected", "huge")), name
    assert found["jinja"]["part"] == JINJA and JINJA.replace("'", "") in found["jinja"]["said"].replace(
        "\\", ""
    ).replace("'", "")
    assert JINJA in found["refused"]["answer"]["msg"]
    assert found["inner"]["answer"]["msg"].startswith(
        "What inner answered to neuron_info is not used: kernel.release is"
    )
    assert "it lacks activations, dpkg_interrupted, driver" in found["nothing"]["answer"]["msg"]
    for name in ("good", "injected"):
        assert {key: found[name]["answer"][key] for key in GOOD["neuron_info"]} == GOOD["neuron_info"]


def test_the_end_of_a_long_message_is_kept() -> None:
    said = observation.said({"msg": "begin " + "x" * 100000 + " the reason"})
    assert said.startswith("begin ") and said.endswith(" the reason")
    assert len(said) <= observation.LONGEST_MESSAGE
