# SPDX-License-Identifier: GPL-3.0-or-later
"""The turn of a host in site.yml and rollback.yml: what is run for whom when something fails in it.

The files of tasks are the real ones. In place of the roles, and of what asks a host, there are tasks that say what they
are told; the hosts are this machine, and one that cannot be reached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
TASKS = CHECKOUT / "playbooks" / "tasks"
TOLD = """#!/usr/bin/python
import json, sys
print(json.dumps(dict(json.load(open(sys.argv[1])), changed=False)))
# WANT_JSON
"""
ROLE = [
    {"name": "CHANGED", "ansible.builtin.debug": {"msg": "{{ inventory_hostname }}"}},
    {"name": "Check", "ansible.builtin.fail": {"msg": "it does not serve"}, "when": "broken | default(false)"},
]
BEFORE = [
    {"name": "BEFORE", "ansible.builtin.debug": {"msg": "{{ inventory_hostname }}"}},
    {"name": "Check", "ansible.builtin.fail": {"msg": "no drain"}, "when": "broken_before | default(false)"},
]
AFTER = [
    {"name": "Check", "ansible.builtin.fail": {"msg": "no pool"}, "when": "broken_after | default(false)"},
    {"name": "AFTER", "ansible.builtin.debug": {"msg": "{{ inventory_hostname }}"}},
]


def without_roles(tasks: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The tasks with what would change or ask a host in place of nothing but words."""
    found = []
    for task in tasks:
        task = {
            key: without_roles(value, folder) if key in ("block", "rescue") else value for key, value in task.items()
        }
        if task.pop("ansible.builtin.include_role", None):
            task["ansible.builtin.include_tasks"] = str(folder / "role.yml")
        if task.pop("neuronops.vllm.host_lock", None) is not None:
            task["told"] = {"held": True}
        if task.pop("neuronops.vllm.vllm_answer", None):
            task["told"] = {"state": "{{ 'hung' if dead | default(false) else 'answers' }}"}
        if task.get("ansible.builtin.include_tasks") == "lost.yml":
            task["ansible.builtin.include_tasks"] = str(TASKS / "lost.yml")
        found.append(task)
    return found


class Run:
    def __init__(self, status: int, said: str) -> None:
        self.status, self.said = status, said

    def of(self, name: str) -> list[str]:
        """The hosts of which a task was run, in their order."""
        hosts: list[str] = []
        for part in self.said.split(f"TASK [{name}]")[1:]:
            lines = part.split("TASK [")[0].splitlines()
            hosts += sorted(line.split("[")[1].split("]")[0] for line in lines if line.startswith("ok: ["))
        return hosts


def turns(
    tmp_path: Path,
    hosts: dict[str, dict[str, Any]],
    batches: list[Any],
    percentage: int = 0,
    groups: tuple[str, ...] = (),
    endpoint: str = "",
) -> Run:
    """Give each host its turn."""
    (tmp_path / "library").mkdir(exist_ok=True)
    (tmp_path / "library" / "told.py").write_text(TOLD)
    for name, tasks in (("role", ROLE), ("before", BEFORE), ("after", AFTER)):
        (tmp_path / f"{name}.yml").write_text(json.dumps(tasks))
    activate = without_roles(yaml.safe_load((TASKS / "activate.yml").read_text()), tmp_path)
    (tmp_path / "activate.yml").write_text(json.dumps(activate))
    (play,) = [
        play
        for play in yaml.safe_load((CHECKOUT / "playbooks" / "site.yml").read_text())
        if play["name"].startswith("Activate")
    ]
    play = {key: value for key, value in play.items() if key not in ("become", "vars_files")}
    play["tasks"] = [{"ansible.builtin.include_tasks": str(tmp_path / "activate.yml")}]
    play["vars"] = {
        "vllm_server_must_activate": True,
        "__site_release": {"path": "/opt/one"},
        "__site_turn_file": f"{tmp_path}/turn-{{{{ inventory_hostname }}}}",
        "__site_hooks": {
            "before_activation": f"{tmp_path}/before.yml",
            "after_activation": f"{tmp_path}/after.yml",
            "target_groups": groups,
            "target_timeout": 1,
        },
    }
    facts = {"__site_activate": list(hosts), "__site_batches": batches, "__site_max_fail_percentage": percentage}
    first = {"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.set_fact": facts}]}
    (tmp_path / "play.yml").write_text(json.dumps([first, play]))
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"hosts": {name: {**here, **given} for name, given in hosts.items()}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.json", tmp_path / "play.yml"],
        cwd=CHECKOUT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_LIBRARY": str(tmp_path / "library"),
            **(
                {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
                if endpoint
                else {}
            ),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr)


def test_a_host_that_fails_takes_nothing_from_the_others_of_its_batch(tmp_path: Path) -> None:
    run = turns(tmp_path, {"a": {"broken": True}, "b": {}, "c": {}}, [2])
    assert run.status == 2 and "it does not serve" in run.said
    # It went back and serves: both are let in again.
    assert (run.of("BEFORE"), run.of("CHANGED"), run.of("AFTER")) == (["a", "b"], ["a", "b"], ["a", "b"])
    assert not list(tmp_path.glob("turn-*"))


def test_a_host_that_does_not_serve_is_not_let_in_again(tmp_path: Path) -> None:
    run = turns(tmp_path, {"a": {"broken": True, "dead": True}, "b": {}}, [2])
    assert run.status == 2 and run.of("AFTER") == ["b"]
    # The next run ends its turn.
    assert [path.name for path in tmp_path.glob("turn-*")] == ["turn-a"]


def test_what_failed_before_anything_was_changed_lets_the_host_in_again(tmp_path: Path) -> None:
    run = turns(tmp_path, {"a": {"broken_before": True}, "b": {}}, [1])
    assert run.status == 2 and "no drain" in run.said
    assert (run.of("CHANGED"), run.of("AFTER")) == ([], ["a"])


def test_a_turn_whose_last_tasks_fail_stays_open(tmp_path: Path) -> None:
    run = turns(tmp_path, {"a": {"broken_after": True}, "b": {}, "c": {}}, [2])
    # ansible-core 2.17 breaks a long message into lines.
    said = " ".join(run.said.split())
    assert run.status == 2
    assert "What comes after the activation failed on a, and is run again by the next run: no pool" in said
    assert (run.of("CHANGED"), run.of("AFTER")) == (["a", "b"], ["b"])
    assert [path.name for path in tmp_path.glob("turn-*")] == ["turn-a"]


AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}


@pytest.mark.parametrize(("percentage", "changed"), [(0, ["a"]), (24, ["a"]), (25, ["a", "c", "d"])])
def test_a_host_that_cannot_be_reached_any_more_counts_as_one_that_failed(
    tmp_path: Path, percentage: int, changed: list[str]
) -> None:
    run = turns(tmp_path, {"a": {}, "b": AWAY, "c": {}, "d": {}}, [2], percentage)
    assert run.of("CHANGED") == changed and run.status != 0
    if percentage < 25:
        assert "b failed or could not be reached any more" in " ".join(run.said.split())


def test_all_is_well(tmp_path: Path) -> None:
    run = turns(tmp_path, {"a": {}, "b": {}, "c": {}}, [1, 2])
    assert run.status == 0 and run.of("AFTER") == ["a", "b", "c"] and not list(tmp_path.glob("turn-*"))
