# SPDX-License-Identifier: GPL-3.0-or-later
"""The trials of tests/kill see what they are to see: what differs, who was not served, where a run is cut off."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.kill import draw, lab
from tests.kill.client import Asked, Client, longest_gap, lost, most_away_at_once, outages
from tests.kill.faults import FAULTS, reads

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_usual_sample_is_one_trial_of_one_host_and_another_each_day() -> None:
    drawn = [draw.draws(draw.USUAL, seed, list(FAULTS)) for seed in range(20250101, 20250401)]
    assert all(len(boundaries) + len(faults) == 1 for boundaries, faults in drawn)
    assert {fault for _, faults in drawn for fault in faults} == {*FAULTS} - {*draw.OF_A_FLEET}
    assert {one.series for boundaries, _ in drawn for one in boundaries} == {*draw.SAMPLED}
    assert set(draw.OF_A_FLEET) <= set(FAULTS) and not draw.are_named(draw.USUAL)


def test_the_sample_is_another_each_day_and_the_same_on_one() -> None:
    names = list(FAULTS)
    one, two = draw.draws("4", 20250101, names), draw.draws("4", 20250102, names)
    assert one == draw.draws("4", 20250101, names) != two
    for boundaries, faults in (one, two):
        assert (len(boundaries), len(faults)) == (4, 3)
        assert len({(found.series, found.how) for found in boundaries}) == 4
        assert {found.series for found in boundaries[:3]} == set(draw.SAMPLED)


def test_all_is_every_series_in_both_ways_and_every_fault() -> None:
    boundaries, faults = draw.draws("all", 1, list(FAULTS))
    assert {(found.series, found.how) for found in boundaries} == {(s, h) for s in lab.SERIES for h in draw.HOW}
    assert faults == list(FAULTS)
    assert boundaries[0].among([1, 5, 9]) == [1, 5, 9]


def test_a_trial_can_be_repeated_by_its_name() -> None:
    boundaries, faults = draw.draws("upgrade:host:37, rollback:controller:0.999,fault:disk-full", 1, list(FAULTS))
    assert faults == ["disk-full"]
    assert [str(found) for found in boundaries] == ["upgrade:host:37", "rollback:controller:0.999"]
    assert boundaries[0].among([1, 5, 9]) == [37] and boundaries[1].among([1, 5, 9]) == [9]
    for wrong in ("fault:nothing", "upgrade:host:0", "upgrade:nobody:3", "upgrade:host:1.0", "driver"):
        with pytest.raises(ValueError, match="NEURONOPS_KILL has"):
            draw.draws(wrong, 1, list(FAULTS))


def test_requests_without_an_answer_are_lost_and_the_gap_is_between_those_with_one() -> None:
    times = [(0.0, True), (0.5, True), (1.0, False), (1.5, False), (2.0, True), (2.5, True)]
    requests = [Asked(sent, sent + 0.1, answered) for sent, answered in times]
    assert (lost(requests), longest_gap(requests)) == (2, 1.5)
    # One that is away at the end, or from the beginning on, is away as well.
    assert longest_gap(requests[:4]) == 1.0 and longest_gap(requests[2:4]) == 0.5
    assert (lost([]), longest_gap([])) == (0, 0.0)


def asked(*times: tuple[float, bool]) -> list[Asked]:
    return [Asked(sent, sent + 0.1, answered) for sent, answered in times]


def test_servers_that_are_away_together_are_counted() -> None:
    one = asked((0.0, True), (0.5, False), (1.0, False), (1.5, True), (3.0, False), (3.5, True))
    other = asked((0.2, True), (1.2, False), (1.7, True))
    third = asked((0.2, True), (3.2, False))
    assert outages(one) == [(0.5, 1.5), (3.0, 3.5)] and outages(third) == [(3.2, float("inf"))]
    assert [most_away_at_once(servers) for servers in ([], [one], [one, other], [other, third], [one, one, one])] == [
        0, 1, 2, 1, 3,
    ]  # fmt: skip
    assert most_away_at_once([one, third]) == 2


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        status = 200 if self.headers["Authorization"] == "Bearer key" else 401
        body = b'{"choices": []}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def test_the_client_asks_twice_a_second_and_loses_what_is_not_answered() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Client("127.0.0.1", port, "key", "m") as client, Client("127.0.0.1", port, "other", "m") as refused:
            time.sleep(1.8)
    finally:
        server.shutdown()
        server.server_close()
    assert len(client.requests) == 3 and lost(client.requests) == 0
    assert lost(refused.requests) == len(refused.requests) == 3
    assert not Client("127.0.0.1", port, "key", "m").answers()


def test_every_difference_between_two_states_is_a_line() -> None:
    one = {"link": "a", "files": {"x": "1", "y": "2"}, "freeze": ["a", "b"]}
    assert lab.differences(one, json.loads(json.dumps(one))) == []
    two = {"link": "b", "files": {"x": "1", "z": "2"}, "freeze": ["a", "c"]}
    found = lab.differences(one, two)
    assert [line.partition(":")[0] for line in found] == ["/files/y", "/files/z", "/freeze", "/link"]


def lines(*pairs: tuple[str, bool]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for number, (action, ran) in enumerate(pairs, start=1):
        found.append({"number": number, "action": action, "name": ""})
        found += [{"ran": number}] if ran else []
    return found


def test_tasks_that_run_nothing_on_a_host_make_no_boundaries_of_their_own() -> None:
    run = lab.Run(0, "", lines(
        ("ansible.builtin.assert", True), ("neuronops.vllm.neuron_info", True), ("include_tasks", True),
        ("ansible.builtin.apt", False), ("ansible.builtin.copy", True), ("ansible.builtin.set_fact", True),
        ("ansible.builtin.command", True),
    ))  # fmt: skip
    assert run.on_the_host() == [2, 5, 7]
    assert run.apart() == [1, 3, 6]


def test_a_fault_has_to_end_the_run_with_its_words() -> None:
    assert reads(lab.Run(2, "fatal: the disk\n  is full", []), r"disk is full") == []
    assert "did not fail" in reads(lab.Run(0, "the disk is full", []), r"full")[0]
    assert "did not end by itself" in reads(lab.Run(-1, "the disk is full", []), r"full")[0]
    assert "does not say" in reads(lab.Run(2, "something", []), r"full")[0]


PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - {name: Check one, ansible.builtin.debug: {msg: one}}
    - {name: Check two, ansible.builtin.debug: {msg: two}, when: false}
    - {name: Check three, ansible.builtin.debug: {msg: three}}
"""


def play(folder: Path, boundary: int, program: list[str]) -> tuple[int, str, list[dict[str, object]]]:
    (folder / "play.yml").write_text(PLAY)
    boundaries = folder / "boundaries"
    boundaries.touch()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tests" / "kill" / "callback"),
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "NEURONOPS_BOUNDARIES": str(boundaries),
        "NEURONOPS_BOUNDARY": str(boundary),
        "NEURONOPS_AT_BOUNDARY": json.dumps(program),
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(folder / "play.yml")]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, start_new_session=True
    )
    return done.returncode, done.stdout, [json.loads(line) for line in boundaries.read_text().splitlines()]


def test_a_run_is_ended_where_the_task_begins(tmp_path: Path) -> None:
    status, said, found = play(tmp_path, 3, [])
    assert status == -signal.SIGKILL
    assert "three" not in said.partition("TASK [Check two]")[2].replace("Check three", "")
    assert found[-1] == {"number": 3, "action": "ansible.builtin.debug", "name": "Check three"}


def test_a_program_is_started_where_the_task_begins_and_the_run_goes_on(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    status, said, found = play(tmp_path, 1, ["sh", "-c", f"touch {mark}; echo begun; sleep 60"])
    assert status == 0 and mark.exists() and "three" in said
    assert [line["ran"] for line in found if "ran" in line] == [1, 3]


def test_the_killer_ends_what_runs_below_a_session_of_sshd_and_nothing_else(tmp_path: Path) -> None:
    program = (CHECKOUT / "tests" / "kill" / "on_host" / "killer.py").read_text()
    namespace: dict[str, object] = {}
    exec(compile(program.replace("\nmain()\n", "\n"), "killer", "exec"), namespace)  # noqa: S102 - it is ours
    of_ansible = namespace["of_ansible"]
    assert callable(of_ansible)
    found = {
        1: (0, "systemd"), 10: (1, "sshd"), 11: (10, "sshd"), 12: (11, "sh"), 13: (12, "python3"),
        20: (1, "python"), 30: (99, "lost"),
    }  # fmt: skip
    assert sorted(of_ansible(found)) == [12, 13]


def test_times_are_no_difference_and_all_else_is() -> None:
    program = (CHECKOUT / "tests" / "kill" / "on_host" / "state.py").read_text()
    namespace: dict[str, object] = {}
    exec(compile(program.replace("\nmain()\n", "\n"), "state", "exec"), namespace)  # noqa: S102 - it is ours
    without_times = namespace["without_times"]
    assert callable(without_times)
    one = {
        "recorded_at": 1,
        "packages": ["a"],
        "note": "at 2025-01-01T10:00:00Z",
        "proof": {"time": 3, "x": 1},
    }
    two = {"recorded_at": 2, "packages": ["a"], "note": "at 2025-02-01 10:00:01 +0000", "proof": {"x": 1}}
    assert without_times(one) == without_times(two)
    assert without_times(one) != without_times({**two, "packages": ["b"]})


def test_each_row_of_the_table_of_faults_names_a_trial_and_each_trial_has_a_row() -> None:
    text = (CHECKOUT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| fault ")]
    named = [
        re.findall(r"`((?:fault|driver|install|upgrade|rollback):[a-z:-]+)`", row.rpartition(" | ")[2]) for row in rows
    ]
    assert all(named), "a row names no trial"
    wanted = {f"fault:{name}" for name in FAULTS}
    wanted |= {str(found) for found in draw.draws("all", 1, list(FAULTS))[0]}
    assert {name for names in named for name in names} == wanted
