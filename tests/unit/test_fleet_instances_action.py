# SPDX-License-Identifier: GPL-3.0-or-later
"""The action that launches: what it answers, and what it says on the way to AWS."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.neuronops.vllm.plugins.action import fleet_instances
from ansible_collections.neuronops.vllm.plugins.plugin_utils import fleet, options, stacks
from botocore.exceptions import NoCredentialsError

RUNS = {"instance_id": "i-1", "instance_type": "inf2.xlarge", "state": "running"}


def run(check_mode: bool = False, **more: Any) -> dict[str, Any]:
    """Return the answer of the action to a task, with the options of launch."""
    groups = [{"instance_type": "inf2.xlarge", "count": 1}]
    given = {"groups": groups, "key_name": "me", "subnet_ids": ["subnet-1"], **more}
    variables = {f"launch_{name}": value for name, value in given.items()}
    wanted = options.converted("launch", variables, variables.__getitem__)[0]
    task = SimpleNamespace(
        args={"options": wanted, "stack": dict(stacks.resolve()), "region": "eu-west-1"},
        check_mode=check_mode,
        async_val=0,
        diff=False,
        action="neuronops.vllm.fleet_instances",
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
    action = fleet_instances.ActionModule(task, connection, None, None, None, None)
    answer: dict[str, Any] = action.run(task_vars={})
    return answer


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have the steps of the launch answer what a test puts here, or raise it."""
    answers: dict[str, Any] = {
        "survey": None,
        "rehearse": (True, [RUNS]),
        "launch": (True, [RUNS, RUNS]),
    }

    def step(name: str) -> Any:
        def answered(*_arguments: Any) -> Any:
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name]

        return answered

    for name in answers:
        monkeypatch.setattr(fleet, name, step(name))
    return answers


def test_it_launches_and_in_check_mode_only_asks(steps: dict[str, Any]) -> None:
    done = run()
    assert done["changed"] is True and done["instances"] == [RUNS, RUNS] and not done.get("failed")
    steps["launch"] = AssertionError("launched in check mode")
    asked = run(check_mode=True)
    assert asked["changed"] is True and asked["instances"] == [RUNS]


def test_what_cannot_be_meant_ends_before_aws_is_asked(steps: dict[str, Any]) -> None:
    steps["survey"] = AssertionError("asked")
    with pytest.raises(AnsibleError, match=r"launch_subnet_ids is required.*Nothing was launched\."):
        run(subnet_ids=[])


def test_a_refusal_before_the_launch_says_that_nothing_was_launched(steps: dict[str, Any]) -> None:
    steps["launch"] = AssertionError("launched")
    steps["rehearse"] = fleet.FleetError("No subnet")
    done = run()
    assert done["failed"] and done["msg"] == "No subnet. Nothing was launched." and done["changed"] is False
    steps["survey"] = NoCredentialsError()
    assert "Unable to locate credentials. `aws sts get-caller-identity`" in run()["msg"]


def test_a_refusal_in_the_middle_names_and_returns_what_runs(steps: dict[str, Any]) -> None:
    steps["launch"] = fleet.LaunchError("No capacity", [RUNS])
    done = run()
    assert done["failed"] and done["changed"] is True and done["instances"] == [RUNS]
    assert done["msg"].startswith("No capacity. Launched or started before that, and paid for: i-1 (inf2.xlarge).")
    assert done["msg"].endswith(fleet.terminate_command("neuron", "eu-west-1"))


def test_a_lost_answer_is_not_told_as_nothing(steps: dict[str, Any]) -> None:
    steps["launch"] = fleet.LaunchError("Read timeout", [], "1 inf2.xlarge in subnet-1 were launched")
    done = run()
    assert done["failed"] and done["changed"] is True and "Nothing was launched" not in done["msg"]
    assert done["msg"].startswith("Read timeout. It is not known whether 1 inf2.xlarge in subnet-1 were launched")


def test_without_boto3_it_says_what_to_install(steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(AnsibleError, match="pip install boto3"):
        run()
