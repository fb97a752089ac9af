# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role vllm says of its options and of a host, before it does anything."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.neuronops.vllm.plugins.module_utils.vllm_source import ARCHIVES, kind
from ansible_collections.neuronops.vllm.plugins.plugin_utils import stacks

from tests.unit.role_variables import ROLES, TRUSTED, read, value

FOUND = {
    "path": "/opt/aws_neuron_venv_pytorch",
    "exists": True,
    "python": {"works": True, "version": "3.11.7", "executable": "/usr/bin/python3.11", "problem": None},
    "packages": {"vllm": "0.9.2+neuron218"},
    "damaged": {},
    "changed_files": [],
    "manifests": {},
}


def load(tasks: str) -> list[dict[str, Any]]:
    """Return a file of tasks of the role."""
    content: list[dict[str, Any]] = DataLoader().load_from_file(
        str(ROLES / "vllm" / "tasks" / f"{tasks}.yml"), **TRUSTED
    )
    return content


def known(**options: Any) -> dict[str, Any]:
    """Return the role's variables with options as a user gives them."""
    variables = {
        "inventory_dir": "/srv/fleet",
        "inventory_hostname": "one",
        "role_path": str(ROLES / "vllm"),
        **read("vllm", "defaults"),
        **read("vllm", "vars"),
        "__vllm_host": {"environments": [FOUND]},
        "__vllm_wheel": {"requirements": ["fastapi"], "sha256": "0" * 64, "version": "0.9.2+neuron218"},
        "__vllm_lock": {
            "lock": "fastapi==0.115.0 --hash=sha256:" + "1" * 64 + "\n",
            "packages": {"fastapi": "0.115.0"},
        },
        "vllm_stack": stacks.resolve("vllm-0.9.2"),
        **options,
    }
    names = read("vllm", "defaults")
    variables["_vllm"] = {name[len("vllm_") :]: value(name, variables) for name in names}
    return variables


def done(**changed: Any) -> bool:
    """Say whether a host is finished that was finished with other variables."""
    inputs = value("_vllm_inputs", known())
    manifest = {"inputs": inputs, "packages": {"vllm": "0.9.2+neuron218"}, "files": {}}
    host = {"environments": [{**FOUND, "manifests": {"vllm": manifest}}]}
    return bool(value("_vllm_plan", known(__vllm_host=host, **changed))["done"])


def test_a_finished_host_is_done() -> None:
    assert done()


@pytest.mark.parametrize(
    "changed",
    [
        {"__vllm_lock": {"lock": "fastapi==0.116.0 --hash=sha256:" + "1" * 64 + "\n"}},
        {"__vllm_wheel": {"requirements": ["fastapi"], "sha256": "2" * 64}},
        {"vllm_constraints": ["fastapi<1"]},
    ],
)
def test_a_lock_that_was_made_anew_reaches_a_finished_host(changed: dict[str, Any]) -> None:
    assert not done(**changed)


def test_what_would_be_installed_is_told_before_there_is_an_environment() -> None:
    none = {"environments": [{**FOUND, "exists": False, "python": {"works": False, "version": None, "problem": None}}]}
    layer = value("_vllm_layer", known(__vllm_host=none))
    assert layer["name"] == "vllm"
    assert layer["path"] == "/opt/aws_neuron_venv_pytorch"
    assert layer["packages"] == {"fastapi": "0.115.0", "vllm": "0.9.2+neuron218"}
    assert layer["inputs"] == value("_vllm_inputs", known())
    assert len(layer["lock_sha256"]) == 64


@pytest.mark.parametrize("unknown", [{"__vllm_wheel": {"wheel": ""}}, {"__vllm_lock": {"lock": "", "packages": {}}}])
def test_without_wheel_or_lock_nothing_is_claimed(unknown: dict[str, Any]) -> None:
    variables = known(**unknown)
    assert value("_vllm_layer", variables) == {
        "name": "vllm",
        "path": "/opt/aws_neuron_venv_pytorch",
        "inputs": "",
        "lock_sha256": "",
        "packages": {},
    }
    assert value("_vllm_plan", variables)["done"] is False


def test_another_environment_can_be_the_one_to_build_in() -> None:
    assert value("_vllm_build_venv", known()) == "/opt/aws_neuron_venv_pytorch"
    assert value("_vllm_build", known()) is True
    assert value("_vllm_build", known(__vllm_build=False)) is False
    wheel = Path(ROLES, "vllm", "tasks", "wheel.yml").read_text()
    assert wheel.count("{{ _vllm_build_venv }}") == 2 and "{{ _vllm.venv }}" not in wheel


def test_the_tools_of_the_collections_stacks_are_locked() -> None:
    assert value("_vllm_build_tools_known", known())
    other = stacks.resolve(overrides={"vllm": {"build_requirements": ["setuptools"]}})
    assert not value("_vllm_build_tools_known", known(vllm_stack=other))


def test_the_lock_is_resolved_where_the_option_says() -> None:
    assert value("_vllm_resolver", known()) == "controller"
    assert value("_vllm_resolving_host", known()) == "one"
    assert value("_vllm_resolver", known(vllm_lock_resolver="two")) == "host"
    assert value("_vllm_resolving_host", known(neuron_venv_lock_resolver="two")) == "two"


def test_no_path_that_a_host_told_is_used() -> None:
    text = "".join(path.read_text() for path in Path(ROLES, "vllm").rglob("*.yml"))
    assert "python.executable" not in text and "real_path" not in text


def test_the_role_knows_an_archive_by_the_same_ends_as_the_module() -> None:
    patterns = [
        pattern
        for file in (ROLES / "vllm" / "tasks").glob("*.yml")
        for pattern in re.findall(r"search\('([^']*tgz[^']*)'\)", file.read_text(encoding="utf-8"))
    ]
    for pattern in patterns:
        for end in ARCHIVES:
            assert re.search(pattern, f"https://mirror.example/vllm{end}"), f"{pattern} does not know {end}"
        assert not re.search(pattern, "https://mirror.example/vllm.git")
    assert all(kind(f"/srv/vllm{end}") == "archive" for end in ARCHIVES)


PLUGGED = stacks.resolve("vllm-0.13.0")
PLUGIN_WHEEL = {
    "requirements": ["urllib3>=2.6.0"],
    "sha256": "3" * 64,
    "version": PLUGGED["plugin"]["version"],
    "wheel": "vllm_neuron.whl",
    "directory": "/srv/wheels/plugin",
    "commit": "c" * 40,
}


def plugged(**options: Any) -> dict[str, Any]:
    """Return the role's variables with a stack whose plugin is built from source."""
    wheel = {"requirements": ["fastapi"], "sha256": "0" * 64, "version": "0.13.0+empty", "wheel": "vllm.whl"}
    given = {"vllm_stack": PLUGGED, "__vllm_wheel": wheel, "__vllm_plugin_wheel": PLUGIN_WHEEL, **options}
    return known(**given)


def test_both_wheels_are_locked_and_what_both_need() -> None:
    lock = value("_vllm_lock", plugged())
    assert lock.endswith(
        f"vllm==0.13.0+empty \\\n    --hash=sha256:{'0' * 64}\n"
        f"vllm-neuron=={PLUGIN_WHEEL['version']} \\\n    --hash=sha256:{'3' * 64}\n"
    )
    assert value("_vllm_requirements", plugged())[:2] == ["fastapi", "urllib3>=2.6.0"]
    layer = value("_vllm_layer", plugged())
    assert layer["packages"]["vllm-neuron"] == PLUGIN_WHEEL["version"] and layer["inputs"]


@pytest.mark.parametrize(
    "changed",
    [
        {"__vllm_plugin_wheel": {**PLUGIN_WHEEL, "sha256": "4" * 64}},
        {"vllm_plugin_source": "/srv/plugin.bundle"},
        {"vllm_plugin_source_key": "another key"},
        {"vllm_stack": {**PLUGGED, "plugin": {**PLUGGED["plugin"], "entry_point": "other"}}},
    ],
)
def test_another_plugin_is_another_layer(changed: dict[str, Any]) -> None:
    assert value("_vllm_inputs", plugged(**changed)) != value("_vllm_inputs", plugged())


def test_without_the_plugins_wheel_nothing_is_claimed() -> None:
    assert value("_vllm_layer", plugged(__vllm_plugin_wheel={"wheel": ""}))["inputs"] == ""


def test_a_vllm_that_knows_neuron_itself_is_what_it_was() -> None:
    """Hosts that are finished are not done again, and releases keep their names."""
    variables = known()
    assert value("_vllm_built", variables) == [variables["__vllm_wheel"]]
    lock = variables["__vllm_lock"]["lock"]
    assert value("_vllm_lock", variables) == f"{lock}\nvllm==0.9.2+neuron218 \\\n    --hash=sha256:{'0' * 64}\n"
    stack = variables["_vllm"]["stack"]
    given = [
        stack["vllm"],
        stack["python_packages"],
        stack["excluded_packages"],
        value("_vllm_constraints", variables),
        "3.11",
        variables["_vllm"]["source"],
        "",
        "",
        "0" * 64,
        lock,
    ]
    assert value("_vllm_inputs", variables) == hashlib.sha256(json.dumps(given).encode()).hexdigest()


OPTIMUM = stacks.resolve("optimum-0.4.5")


def locked(**options: Any) -> dict[str, Any]:
    """Return the role's variables with a stack whose plugin is a wheel of the public index."""
    wheel = {"requirements": ["fastapi"], "sha256": "0" * 64, "version": "0.11.0+empty", "wheel": "vllm.whl"}
    resolved = {"lock": "optimum-neuron==0.4.5 --hash=sha256:" + "1" * 64, "packages": {"optimum-neuron": "0.4.5"}}
    return known(**{"vllm_stack": OPTIMUM, "__vllm_wheel": wheel, "__vllm_lock": resolved, **options})


def test_a_plugin_without_a_source_is_locked_with_all_else_that_is_needed() -> None:
    variables = locked()
    assert value("_vllm_requirements", variables) == ["fastapi", "optimum-neuron==0.4.5", "torch", "torchvision"]
    assert value("_vllm_built", variables) == [variables["__vllm_wheel"]]
    lock = value("_vllm_lock", variables)
    assert lock.count("optimum-neuron==") == 1 and lock.count("--hash") == 2
    assert value("_vllm_build_requirements", variables) == [OPTIMUM["vllm"]["build_requirements"]]
    assert value("_vllm_layer", variables)["packages"] == {"optimum-neuron": "0.4.5", "vllm": "0.11.0+empty"}
    assert value("_vllm_modules", variables) == OPTIMUM["plugin"]["modules"]
    other = {**OPTIMUM, "plugin": {**OPTIMUM["plugin"], "entry_point": "other"}}
    assert value("_vllm_inputs", locked(vllm_stack=other)) != value("_vllm_inputs", variables)


def test_a_plugin_without_a_source_is_proven_and_recorded_by_its_version() -> None:
    tasks = {task["name"]: task for task in load("prove") + load("install")}
    wanted = tasks["Verify that vLLM works with its plugin"]["vars"]["__vllm_wanted"]
    record = tasks["Record that vLLM is complete"]["neuronops.vllm.release_record"]["layer"]
    texts = {"versions": wanted["versions"], **{name: record[name] for name in record if name.startswith("plugin_")}}
    found = {name: value(name, {**locked(), **texts, "omit": "nothing"}) for name in texts}
    assert found == {
        "versions": {"vllm": "0.11.0+empty", "optimum-neuron": "0.4.5"},
        "plugin_version": "0.4.5",
        **dict.fromkeys(("plugin_commit", "plugin_source", "plugin_wheel_sha256"), "nothing"),
    }


def test_where_the_plugin_comes_from_is_the_stacks_or_the_option() -> None:
    assert value("_vllm_plugin_source", plugged()) == PLUGGED["plugin"]["source"]
    assert value("_vllm_plugin_source", plugged(vllm_plugin_source="/srv/plugin.git")) == "/srv/plugin.git"
    assert value("_vllm_plugin_source", known()) == ""
