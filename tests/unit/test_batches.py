# SPDX-License-Identifier: GPL-3.0-or-later
"""How many hosts change at a time: the options of site.yml and rollback.yml, as a run of Ansible sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HOSTS = [f"h{number}" for number in range(1, 9)]
# The keywords of site.yml's play that activates, over hosts that only say with whom they have their turn.
PLAYS: list[dict[str, Any]] = [
    {
        "hosts": "neuron",
        "gather_facts": False,
        "any_errors_fatal": True,
        "tasks": [
            {"ansible.builtin.include_tasks": str(CHECKOUT / "playbooks/tasks/batches.yml")},
            {
                "ansible.builtin.set_fact": {"__site_activate": "{{ ansible_play_hosts }}"},
                "run_once": True,
                "delegate_to": "localhost",
                "delegate_facts": True,
            },
        ],
    }
]


def activation() -> dict[str, Any]:
    """The play of site.yml that activates, with tasks that only tell."""
    import yaml

    plays = yaml.safe_load((CHECKOUT / "playbooks/site.yml").read_text())
    (play,) = [play for play in plays if play["name"].startswith("Activate")]
    tell = {"ansible.builtin.debug": {"msg": "TURN {{ ansible_play_batch | join(' ') }}"}, "run_once": True}
    fail = {"ansible.builtin.fail": {"msg": "broken"}, "when": "inventory_hostname in broken | default([])"}
    return {**{key: value for key, value in play.items() if key not in ("tasks", "become")}, "tasks": [tell, fail]}


def run(tmp_path: Path, group: dict[str, Any], *arguments: str) -> tuple[int, list[list[str]], str]:
    """Return the status of a run, the hosts of each turn, and all that was said."""
    (tmp_path / "group_vars").mkdir(exist_ok=True)
    (tmp_path / "group_vars" / "neuron.yml").write_text(json.dumps(group))
    lines = ["[neuron]", *(f"{host} ansible_connection=local" for host in HOSTS)]
    (tmp_path / "hosts").write_text("\n".join(lines) + "\n")
    (tmp_path / "play.yml").write_text(json.dumps([*PLAYS, activation()]))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(tmp_path / "hosts"), *arguments]
    done = subprocess.run(
        [*command, "-e", f"ansible_python_interpreter={sys.executable}", str(tmp_path / "play.yml")],
        cwd=CHECKOUT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    turns = [line.split("TURN ")[1].strip('", ').split() for line in said.splitlines() if "TURN " in line]
    return done.returncode, turns, " ".join(said.split())


def test_one_host_first_and_then_a_quarter_of_the_fleet(tmp_path: Path) -> None:
    status, turns, said = run(tmp_path, {})
    assert status == 0, said
    assert turns == [["h1"], ["h2", "h3"], ["h4", "h5"], ["h6", "h7"], ["h8"]]


def test_the_batches_may_stand_in_group_vars_and_beside_the_command(tmp_path: Path) -> None:
    assert run(tmp_path, {"neuron_batch": 4, "neuron_canary": 2})[1] == [["h1", "h2"], HOSTS[2:6], HOSTS[6:]]
    assert run(tmp_path, {"neuron_batch": 4}, "-e", "neuron_batch=100%", "-e", "neuron_canary=0")[1] == [HOSTS]


def test_the_first_failure_stops_the_roll_out(tmp_path: Path) -> None:
    status, turns, _said = run(tmp_path, {}, "-e", '{"broken": ["h3"]}')
    assert (status, turns) == (2, [["h1"], ["h2", "h3"]])
    status, turns, _said = run(tmp_path, {"neuron_max_fail_percentage": 60}, "-e", '{"broken": ["h3"]}')
    assert (status, len(turns)) == (2, 5)


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ({"neuron_batch": 9}, "The fleet has 8 hosts"),
        ({"neuron_batch": 0}, "neuron_batch a number from 1"),
        ({"neuron_batch": "101%"}, "from 1% to 100%"),
        ({"neuron_batch": "some"}, "neuron_batch some"),
        ({"neuron_canary": 9}, "neuron_canary is 9"),
        ({"neuron_max_fail_percentage": 101}, "neuron_max_fail_percentage from 0 to 100"),
        ({"neuron_keep_releases": 0}, "neuron_keep_releases 1 or more"),
        ({"neuron_batch": "{{ 1 if inventory_hostname == 'h1' else 2 }}"}, "must be the same for all hosts"),
        ({"neuron_before_activation": "/nowhere/drain.yml"}, "has no such file"),
        ({"neuron_after_activation": "drain.yml"}, "has no such file"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_changes(
    tmp_path: Path, group: dict[str, Any], says: str
) -> None:
    status, turns, said = run(tmp_path, group)
    assert status == 2 and turns == []
    assert says in said and "Nothing was changed" in said


def test_a_batch_is_held_against_the_fleet_and_not_against_what_limit_leaves(tmp_path: Path) -> None:
    status, turns, said = run(tmp_path, {"neuron_batch": 8}, "--limit", "h5")
    assert status == 0, said
    assert turns == [["h5"]]


def test_the_status_of_verify_is_1_where_a_host_differs(tmp_path: Path) -> None:
    import yaml

    (*_others, last) = yaml.safe_load((CHECKOUT / "playbooks/verify.yml").read_text())
    for differs, expected in (([], 0), (["the driver is not loaded"], 1)):
        found = {
            "h1": {"driver": [], "release": [], "server": []},
            "h2": {"driver": differs, "release": [], "server": []},
        }
        fact = {"ansible.builtin.set_fact": {"__verify_hosts": found}}
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [fact]}
        (tmp_path / "vars").mkdir(exist_ok=True)
        (tmp_path / "vars" / "release.yml").write_text("{}")
        (tmp_path / "verify.yml").write_text(json.dumps([play, last]))
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(tmp_path / "verify.yml")],
            cwd=CHECKOUT,
            env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, done.stdout + done.stderr
        assert ("Not as wanted, as said above: h2" in done.stdout + done.stderr) == bool(differs)
