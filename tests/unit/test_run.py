# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner of the proof counts what the parts really did; that of the mutations sees who noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests import faults
from tests.mutate import Mutation, listed
from tests.run import CHECKOUT, KNOWN, LONG, NOT_RUN, Part, count, last, molecule, tried

PART = Part("some", "true")
FAILED = "FAILED tests/x.py::y\n==== 2 failed, 3 passed, 1 skipped in 1.23s ====\n"


@pytest.mark.parametrize(
    ("log", "exit_status", "counted"),
    [
        ("", 0, (1, 0)),  # a part without pytest is one test
        ("", 1, (0, 1)),
        ("12 passed in 0.11s\n", 0, (12, 0)),
        ("===== 12 passed, 1 warning in 61.02s (0:01:01) =====\n", 0, (12, 0)),
        (FAILED, 1, (3, 2)),
        ("5 passed in 1.00s\n7 passed in 1.00s\n", 0, (12, 0)),  # molecule runs pytest for each verify
        ("5 passed in 1.00s\nfatal: [host]: FAILED!\n", 2, (5, 1)),  # what follows the tests can fail as well
        ("  \x1b[2m│\x1b[0m ============= 4 passed in 28.03s ==============\n", 0, (4, 0)),
        ("1 error in 0.10s\n", 2, (0, 1)),
        ("There is no Python 3.13 here.\n", NOT_RUN, (0, 0)),
    ],
)
def test_count(log: str, exit_status: int, counted: tuple[int, int]) -> None:
    assert count(PART, log, exit_status) == counted


def test_the_end_of_a_failed_part_is_without_colours_and_empty_lines() -> None:
    log = "".join(f"line {number}\n" for number in range(20)) + "\n  \n\x1b[31mFATAL: pylint\x1b[0m\n"
    assert last(log)[-1] == "FATAL: pylint" and last(log)[0] == "line 11"


def test_what_was_tried_is_what_the_part_says() -> None:
    log = "     200 foreign inputs: forms\n1200 foreign inputs tried, seed 20250101\n== 6 passed in 1.00s ==\n"
    assert tried(log) == ["1200 foreign inputs tried, seed 20250101"]
    line = "boundaries killed 4, survived 4; faults tried 3, survived 3; requests lost 9 (longest gap 2.0 s), seed 2025"
    fleet = "stack change over 4 hosts under load: 900 requests, 6 lost, longest gap 3.1 s, at most 1 of 4 away"
    assert tried(f"{fleet}\n{line}\n== 7 passed in 1.00s ==\n") == [fleet, line]
    assert tried("6 passed in 1.00s\n") == []


def test_a_scenario_goes_on_with_the_hosts_of_the_one_before() -> None:
    part = molecule("one", "two")
    assert part.name == "molecule-one-two"
    assert part.command.split(" && ") == [
        "molecule destroy --scenario-name one",  # what a run that was killed has left
        "molecule destroy --scenario-name two",
        "molecule test --scenario-name one --destroy never",
        "molecule test --scenario-name two --destroy never",
        "molecule destroy --scenario-name one",
        "molecule destroy --scenario-name two",
    ]


def test_what_a_scenario_leaves_out_is_in_test_all() -> None:
    files = (CHECKOUT / "molecule").glob("*/molecule.yml")
    texts = {file.parent.name: yaml.safe_load(file.read_text()) or {} for file in files}
    left_out = {name for name, text in texts.items() if "side_effect_sequence" in text.get("scenario", {})}
    assert {f"molecule-{name}-faults" for name in left_out} == {
        part.name for part in LONG if part.name.endswith("-faults")
    }


def test_molecule_runs_the_side_effects_that_a_scenario_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "CHECKOUT", tmp_path)
    folder = tmp_path / "molecule" / "one"
    folder.mkdir(parents=True)
    listed_ones = {"test_sequence": ["destroy"], "side_effect_sequence": ["side_effect break.yml", "idempotence"]}
    (folder / "molecule.yml").write_text(yaml.safe_dump({"scenario": listed_ones, "platforms": [{"name": "host"}]}))
    stub = '#!/bin/sh\ncat "molecule/$3/${MOLECULE_GLOB##*/}" > seen\nexit "$FAILS"\n'
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "molecule").write_text(stub)
    (tmp_path / "bin" / "molecule").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for status in (0, 3):
        monkeypatch.setenv("FAILS", str(status))
        assert faults.main("one") == status
        seen = yaml.safe_load((tmp_path / "seen").read_text())
        steps = ["destroy", "create", "prepare", "converge", "side_effect break.yml", "idempotence", "destroy"]
        assert seen == {"scenario": {"test_sequence": steps}, "platforms": [{"name": "host"}]}
        assert [path.name for path in folder.iterdir()] == ["molecule.yml"]


RUN = """
import sys
from pathlib import Path
from tests import run
run.enter = lambda: None
run.CHECKOUT = run.LOGS = Path(sys.argv.pop())
run.KNOWN = {name: run.Part(name, f"echo $$ > {run.LOGS}/{name}.pid; sleep 300 & wait") for name in ("a", "b", "c")}
sys.exit(run.main())
"""


def test_a_run_that_is_stopped_ends_its_parts_and_begins_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "--part", "a", "--part", "b", "--part", "c", str(tmp_path)]
    environment = {**os.environ, "NEURONOPS_CACHE": str(tmp_path)}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        pids = [tmp_path / f"{name}.pid" for name in ("a", "b")]
        for _ in range(300):
            if run.poll() is not None or all(path.exists() and path.read_text().strip() for path in pids):
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=60)[0]
    assert said.splitlines()[-1] == "0 passed, 3 failed"
    assert run.returncode == 1
    assert not (tmp_path / "c.pid").exists()
    for path in pids:
        with pytest.raises(ProcessLookupError):
            for _ in range(100):  # until the machine's first process has taken note of the last one's end
                os.killpg(int(path.read_text()), 0)
                time.sleep(0.1)


@pytest.mark.parametrize("mutation", listed(), ids=lambda mutation: f"{mutation.role}: {mutation.breaks}")
def test_what_is_to_be_broken_is_there(mutation: Mutation, tmp_path: Path) -> None:
    copied = tmp_path / mutation.file
    copied.parent.mkdir(parents=True)
    copied.write_text((CHECKOUT / mutation.file).read_text())
    mutation.apply(tmp_path)
    assert copied.read_text() != (CHECKOUT / mutation.file).read_text()
    assert mutation.part in KNOWN


def test_each_role_has_three_things_to_break() -> None:
    broken = Counter(mutation.role for mutation in listed())
    roles = {path.parents[1].name for path in (CHECKOUT / "roles").glob("*/meta/argument_specs.yml")}
    assert set(broken) == roles | {"options", "all"}, "what they share is named so"
    assert min(broken.values()) >= 3


@pytest.mark.parametrize(
    ("fails", "log", "noticed"),
    [
        ("test_a", "FAILED molecule/x/test_x.py::test_a[ansible://host] - assert", True),
        ("tests/unit/test_x.py::test_a", "FAILED tests/unit/test_x.py::test_a - assert", True),
        ("test_a", "FAILED tests/unit/test_x.py::test_another - assert", False),
        ("test_a", "molecule/x/test_x.py::test_a PASSED\nfatal: [host]: FAILED!", False),
        ("test_a_b", "  │ FAILED\n  │   tests/test_x.py::test_a_\n  │   b[ansible://host]\n", True),
        ("test_a_b", "  │ FAILED\n  │   tests/test_x.py::test_a_\n  │   bc[ansible://host]\n", False),
        ("nothing is served", "  │ fatal: nothing is\n  │ served", True),
        ("nothing is served", "  │ fatal: something else", False),
    ],
)
def test_a_mutation_counts_as_noticed_when_its_own_test_failed(fails: str, log: str, noticed: bool) -> None:
    mutation = Mutation("role", "breaks", "file", "find", "replace", "unit", fails)
    assert mutation.noticed(log) is noticed
