# SPDX-License-Identifier: GPL-3.0-or-later
"""What role vllm_server decides about a server, in sentences, from what was found."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.filter.server_plan import FilterModule
from ansible_collections.neuronops.vllm.plugins.plugin_utils.server_plan import plan, settled

from tests.answers import ACTIVATION

OURS, THEIRS = "a" * 64, "b" * 64
UNIT, FILE, OTHER = "/etc/systemd/system/vllm.service", "/etc/neuronops/vllm.env", "/etc/needrestart/conf.d/x.conf"
LINK, RELEASE = "/opt/active", "/opt/releases/one"
WANTED: dict[str, Any] = {
    "host": "host1",
    "service": "vllm",
    "configuration": OURS,
    "release": RELEASE,
    "link": LINK,
    "address": "127.0.0.1",
    "port": 8000,
    "restart_unhealthy": True,
    "files": {UNIT: OURS, FILE: OURS},
    "other_files": {OTHER: OURS},
}
SERVES: dict[str, Any] = {
    "service": {"load_state": "loaded", "enabled": True, "needs_reload": False, "ours": True},
    "activations": [{**ACTIVATION, "configuration": OURS, "state": "proven", "ended_at": None, "reason": None}],
    "files": {UNIT: OURS, FILE: OURS, OTHER: OURS},
    "links": {LINK: {"kind": "link", "target": RELEASE}},
    "answer": {
        "state": "answers",
        "problem": None,
        "pid": 77,
        "configuration": OURS,
        "seconds": 600,
        "listener": {"pid": 77, "command": "python", "ours": True},
        "restarts": 0,
    },
}
NOTHING: dict[str, Any] = {
    "service": {"load_state": "not-found", "enabled": False, "needs_reload": False, "ours": None},
    "activations": [],
    "files": {UNIT: None, FILE: None, OTHER: None},
    "links": {LINK: {"kind": "absent", "target": None}},
    "answer": {
        **SERVES["answer"],
        "state": "absent",
        "problem": "there is no vllm.service",
        "pid": None,
        "configuration": None,
        "seconds": None,
        "listener": None,
    },
}


def planned(found: dict[str, Any] = SERVES, wanted: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return the plan for a host that differs in some places, such as answer__state."""
    observed = copy.deepcopy(found)
    for place, value in changes.items():
        part, _separator, name = place.partition("__")
        if name:
            observed[part][name] = value
        else:
            observed[part] = value
    result: dict[str, Any] = FilterModule().filters()["server_plan"](observed, {**WANTED, **(wanted or {})})
    return result


def pending(**changes: Any) -> list[dict[str, Any]]:
    entry = {**SERVES["activations"][0], "state": "pending", "proof": None, "at": "2026-01-31T12:00:00Z", **changes}
    return [{**SERVES["activations"][0], "configuration": THEIRS}, {**entry, "number": 8}]


def test_what_serves_as_wanted_is_left_alone() -> None:
    assert planned() == {
        "differs": [],
        "start": False,
        "reasons": [],
        "refusals": [],
        "failures": [],
        "prove": None,
        "adopt": False,
        "write": [],
        "notes": [],
    }


@pytest.mark.parametrize(
    ("state", "service", "words"),
    [
        ("stopped", {"active_state": "active"}, ["vllm.service is active, and is to be stopped"]),
        ("stopped", {"active_state": "inactive"}, ["vllm.service starts at boot, and is to be stopped"]),
        ("stopped", {"active_state": "inactive", "enabled": False}, []),
        ("stopped", {"active_state": "failed", "enabled": False}, []),
        ("stopped", {"load_state": "not-found", "active_state": "inactive"}, []),
        ("absent", {"active_state": "inactive", "enabled": False}, ["vllm.service is there, and is to be removed"]),
        ("absent", {"load_state": "not-found", "active_state": "inactive"}, []),
    ],
)
def test_nothing_is_to_be_served(state: str, service: dict[str, Any], words: list[str]) -> None:
    found = planned(SERVES, {"state": state}, service={**SERVES["service"], **service})
    assert found["differs"] == words and not found["start"] and found["reasons"] == found["refusals"] == []


def test_a_drop_in_that_makes_it_another_server_is_refused_and_others_are_named() -> None:
    found = planned(
        service={**SERVES["service"], "drop_ins": {"/etc/a.conf": ["ExecStart", "User"], "/etc/b.conf": []}}
    )
    (refusal,) = found["refusals"]
    assert "on host1 /etc/a.conf sets ExecStart and User of vllm.service" in refusal and not found["start"]
    assert found["notes"] == ["/etc/b.conf is not of this collection, and counts for vllm.service"]


def test_what_differs_is_everything_there_is_to_do() -> None:
    pending_one = planned(activations=pending())
    assert pending_one["differs"] == ["activation 8 has answered, and is not recorded as proven"]
    assert "never recorded" in planned(activations=[])["differs"][0]
    assert planned(files={UNIT: OURS, FILE: OURS, OTHER: None})["differs"] == [f"{OTHER} is not as it is written"]
    assert planned(NOTHING)["differs"][0] == "there is no vllm.service"


def test_a_bare_host_is_a_reason() -> None:
    found = planned(NOTHING)
    assert found["start"] and found["reasons"] == ["there is no vllm.service"] and found["refusals"] == []
    assert not found["adopt"] and found["write"] == [OTHER]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer__configuration": THEIRS}, "what runs has another configuration"),
        ({"files": {UNIT: THEIRS, FILE: OURS, OTHER: OURS}}, f"{UNIT} was changed since"),
        ({"files": {UNIT: OURS, FILE: THEIRS, OTHER: OURS}}, f"{FILE} was changed since"),
        ({"files": {UNIT: OURS, FILE: None, OTHER: OURS}}, f"{FILE} is not there"),
        ({"service__needs_reload": True}, "was changed and never loaded"),
        ({"service__enabled": False}, "does not start at boot"),
        ({"links": {LINK: {"kind": "link", "target": "/opt/releases/two"}}}, "leads to another place than"),
        ({"links": {LINK: {"kind": "absent", "target": None}}}, f"{LINK} is not there"),
        ({"answer__state": "stopped", "answer__problem": "vllm.service is stopped"}, "vllm.service is stopped"),
        ({"answer__state": "ended", "answer__problem": "it ended"}, "it ended"),
        ({"answer__state": "ended", "answer__restarts": 3}, "(systemd has started it again 3 times)"),
        (
            {"answer__state": "hung", "answer__problem": "process 77 is stopped"},
            "does not serve: process 77 is stopped",
        ),
        ({"answer__state": "errors", "answer__problem": "status 500"}, "does not serve: status 500"),
        ({"answer__state": "starting", "answer__problem": "no"}, "has not answered since 600 s: no"),
    ],
)
def test_what_is_not_as_wanted_is_a_reason(changes: dict[str, Any], reason: str) -> None:
    found = planned(SERVES, None, **changes)
    assert found["start"] and len(found["reasons"]) == 1 and reason in found["reasons"][0], found
    assert found["refusals"] == found["failures"] == []


def test_a_file_that_needs_no_restart_is_written_without_one() -> None:
    found = planned(files={UNIT: OURS, FILE: OURS, OTHER: None})
    assert found["write"] == [OTHER] and not found["start"]


def test_an_unhealthy_server_is_a_failure_where_it_may_not_be_started_again() -> None:
    found = planned(SERVES, {"restart_unhealthy": False}, answer__state="hung", answer__problem="it hangs")
    assert found["failures"] == ["vllm.service does not serve: it hangs"] and not found["start"]
    # What has to be started for another reason is.
    assert planned(SERVES, {"restart_unhealthy": False, "configuration": THEIRS}, answer__state="hung")["start"]


def test_what_was_never_proven_is_proven_or_started_again() -> None:
    found = planned(activations=pending())
    assert found["prove"] == 8 and not found["start"] and not found["adopt"]
    found = planned(activations=pending(), answer__state="hung", answer__problem="it hangs")
    assert (
        found["prove"] is None and "activation 8 was begun on 2026-01-31T12:00:00Z and never proven" in found["reasons"]
    )
    # It was cut off before anything of it was put in place, and what is wanted serves: that alone is recorded.
    found = planned(activations=pending(configuration=THEIRS))
    assert found["adopt"] and not found["start"] and found["prove"] is None


def test_what_was_never_recorded_is_recorded_before_it_is_replaced() -> None:
    assert planned(activations=[])["adopt"] and not planned(activations=[])["start"]
    changed = planned(SERVES, {"configuration": THEIRS}, activations=[])
    assert changed["adopt"] and changed["start"]
    assert not planned(SERVES, {"configuration": THEIRS})["adopt"]
    assert not planned(NOTHING)["adopt"]
    assert not planned(activations=[], answer__configuration=None)["adopt"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"answer__listener": {"pid": 5, "command": "nginx", "ours": False}},
            "port 8000 of host1 at 127.0.0.1 is held by nginx (process 5), which is not of vllm.service",
        ),
        ({"answer__listener": {"pid": None, "command": "somebody", "ours": False}}, "is held by somebody, which"),
        ({"service__ours": False}, "vllm.service on host1 is not of this collection"),
        ({"service__load_state": "masked", "service__ours": False}, "`systemctl unmask vllm.service`"),
        ({"links": {LINK: {"kind": "folder", "target": None}}}, f"{LINK} on host1 is a folder and no link"),
    ],
)
def test_what_is_not_ours_is_refused_with_what_to_do(changes: dict[str, Any], words: str) -> None:
    for found in (SERVES, NOTHING):
        (refusal,) = planned(found, None, **changes)["refusals"]
        assert words in refusal


def test_a_server_that_was_started_again_is_told_of() -> None:
    (note,) = planned(answer__restarts=2)["notes"]
    assert "has started vllm.service again 2 times" in note and not planned(answer__restarts=2)["start"]


def test_a_plan_of_half_an_observation_is_an_error() -> None:
    with pytest.raises(KeyError):
        plan({}, WANTED)


@pytest.mark.parametrize(
    ("answer", "options", "over"),
    [
        ({"state": "answers"}, {}, True),
        ({"state": "ended"}, {}, True),
        ({"state": "stopped"}, {}, True),
        ({"state": "starting", "seconds": 5}, {}, False),
        ({"state": "hung", "seconds": 5}, {}, False),
        ({"state": "starting", "seconds": None}, {}, False),
        ({"state": "starting", "seconds": 20}, {}, True),
        ({"state": "starting", "seconds": 5}, {"configuration": THEIRS}, True),
        ({"state": "starting", "seconds": 5}, {"configuration": OURS}, False),
        # A host that says for ever that its server is young.
        ({"state": "starting", "seconds": 5}, {"elapsed": 100.0}, True),
        # A server may be slow once.
        ({"state": "hung", "seconds": 600}, {}, False),
        ({"state": "hung", "seconds": 600}, {"looks": 2}, True),
    ],
)
def test_when_there_is_nothing_to_wait_for(answer: dict[str, Any], options: dict[str, Any], over: bool) -> None:
    found = {"restarts": 1, "seconds": 600, "configuration": OURS, **answer}
    given: dict[str, Any] = {"wait": 20, "restarts": 1, "configuration": "", "looks": 1, "elapsed": 1.0, **options}
    assert (settled(found, **given) is not None) is over


@pytest.mark.parametrize("state", ["answers", "starting", "hung"])
def test_a_server_that_was_started_again_meanwhile_has_ended(state: str) -> None:
    found = {"state": state, "restarts": 1, "seconds": 1, "configuration": OURS}
    over = settled(found, 20, 0, "", 1, 1.0)
    assert over is not None and over["state"] == "ended"
