# SPDX-License-Identifier: GPL-3.0-or-later
"""However a run of site.yml is cut off, and whatever fails around it, the next one ends as an undisturbed one.

NEURONOPS_KILL=upgrade:controller:37 make test-part PART=kill    repeats one trial
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future

import pytest

from tests.kill.client import longest_gap, lost, most_away_at_once
from tests.kill.draw import Draw
from tests.kill.faults import fleet
from tests.kill.lab import SEED, SERIES, Lab, Outcome

Trials = dict[str, list[Future[Outcome]]]


def judge(outcomes: list[Future[Outcome]]) -> None:
    ended = [outcome.result() for outcome in outcomes]
    assert ended, "nothing was tried"
    wrong = [
        f"{outcome.place} (NEURONOPS_SEED={SEED} NEURONOPS_KILL={outcome.place} make test-part PART=kill)\n"
        + "\n".join(outcome.problems[:20])
        for outcome in ended
        if outcome.problems
    ]
    assert not wrong, f"{len(wrong)} of {len(ended)}:\n\n" + "\n\n".join(wrong)


# First and alone, before the trials load the machine.
@pytest.mark.thorough
def test_a_fleet_of_four_changes_its_stack_one_host_at_a_time(lab: Lab) -> None:
    series, install, upgraded = SERIES["upgrade"], lab.reference("install"), lab.reference("upgrade")
    with fleet(lab, 4) as machines, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(lab.client(machine)) for machine in machines]
        controller = lab.controller(install.controller)
        run = lab.run(controller, machines, series.stack, lab.command(series), "fleet")
        assert run.status == 0, run.end
        stack.close()
        assert [lab.observe(machine)["link"] for machine in machines] == [upgraded.state["link"]] * 4
    servers = [client.requests for client in clients]
    at_once = most_away_at_once(servers)
    lab.tally.say(
        f"stack change over 4 hosts under load: {sum(map(len, servers))} requests, {sum(map(lost, servers))} lost, "
        f"longest gap {max(map(longest_gap, servers)):.1f} s, at most {at_once} of 4 away"
    )
    assert at_once == 1


def test_a_run_that_was_cut_off_is_finished_by_the_next(trials: Trials, drawn: Draw) -> None:
    judge(trials[str(drawn)])


def test_a_run_that_met_a_fault_says_so_and_is_finished_by_the_next(trials: Trials, fault: str) -> None:
    judge(trials[f"fault:{fault}"])
