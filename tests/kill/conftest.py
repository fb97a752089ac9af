# SPDX-License-Identifier: GPL-3.0-or-later
"""Trials of the light stack, several at a time, and what they came to: see draw.py for which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sandbox import hosts, lifecycle
from sandbox.engine import docker
from sandbox.settings import Settings
from tests.kill import draw, faults
from tests.kill.lab import SEED, Lab, Outcome

NAME = "neuronops-kill"
SUBNET = "10.254.0.0/24"
# A run waits for its host about half of the time.
TOGETHER = int(os.environ.get("NEURONOPS_KILL_TOGETHER") or 3)
BOUNDARIES, CHOSEN_FAULTS = draw.draws(os.environ.get("NEURONOPS_KILL") or draw.USUAL, SEED, faults.possible())
SAID: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Whoever repeats some trials by their names wants those alone.
    named = draw.are_named(os.environ.get("NEURONOPS_KILL") or draw.USUAL)
    others = [item for item in items if named and not hasattr(item, "callspec")]
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=others)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "drawn" in metafunc.fixturenames:
        metafunc.parametrize("drawn", BOUNDARIES, ids=str)
    if "fault" in metafunc.fixturenames:
        metafunc.parametrize("fault", CHOSEN_FAULTS)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONOPS_SANDBOX_NAME", NAME)
        patch.setenv("NEURONOPS_SANDBOX_SUBNET", SUBNET)
        settings = Settings.from_environment()
        lifecycle.up(settings, ec2_too=False)
        try:
            found = Lab(settings, tmp_path_factory.mktemp("controllers"))
            yield found
            SAID.extend(found.tally.lines(SEED))
        finally:
            lifecycle.down(settings)
    assert hosts.listing(settings) == []
    assert docker("image", "ls", "--quiet", "--filter", f"label=neuronops.sandbox={NAME}") == ""


@pytest.fixture(scope="session")
def trials(lab: Lab, request: pytest.FixtureRequest) -> Iterator[dict[str, list[Future[Outcome]]]]:
    """The trials of all tests that were chosen, under way from the first test on."""
    found: dict[str, list[Future[Outcome]]] = {}
    with ThreadPoolExecutor(TOGETHER) as pool:
        try:
            for item in request.session.items:
                parameters: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
                drawn, fault = parameters.get("drawn"), parameters.get("fault")
                if isinstance(drawn, draw.Draw):
                    run = lab.reference(drawn.series).run
                    places = drawn.among(run.on_the_host() if drawn.how == "host" else run.apart())
                    found[str(drawn)] = [pool.submit(lab.kill, drawn.series, drawn.how, place) for place in places]
                elif isinstance(fault, str):
                    found[f"fault:{fault}"] = [pool.submit(faults.try_fault, lab, fault)]
            yield found
        finally:
            pool.shutdown(cancel_futures=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in SAID:
        terminalreporter.write_line(line)
