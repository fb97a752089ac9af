# SPDX-License-Identifier: GPL-3.0-or-later
"""Break what the roles do, as tests/mutations.yml says, and see that the proof notices: `make test-mutations`.

Each run has a copy of the checkout with something broken in it, in .build/mutants, and repeats the part of the proof
that must fail. It ends with the line `N passed, N failed`, where passed means that the named test went red.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import yaml

from tests.run import ANSI, AT_A_TIME, CHECKOUT, COLLECTION, KNOWN, environment_of_tests, execute, sandbox

LIST = CHECKOUT / "tests" / "mutations.yml"
MUTANTS = CHECKOUT / ".build" / "mutants"


@dataclass(frozen=True)
class Mutation:
    """One thing that a role does, taken away."""

    role: str
    breaks: str
    file: str
    find: str
    replace: str
    part: str
    fails: str
    alone: bool = False

    def apply(self, checkout: Path) -> None:
        """Break it; raises ValueError when the text to replace does not stand in the file exactly once."""
        path = checkout / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.find) != 1:
            raise ValueError(f"{self.file} has {self.find!r} {text.count(self.find)} times, not once")
        path.write_text(text.replace(self.find, self.replace), encoding="utf-8")

    def noticed(self, log: str) -> bool:
        """Whether the log of a failed part shows that the named test failed."""
        if re.fullmatch(r"(tests/\S+::)?test_\w+", self.fails):
            name = self.fails.rpartition("::")[2]
            # Molecule draws a line at the left, and breaks what is longer than its width.
            whole = re.sub(r"\n *│   (?=\S)", "", log)
            return bool(re.search(rf"(FAILED|ERROR) *[\w/.]+::{name}(?!\w)", whole))
        return squeezed(self.fails) in squeezed(log)


def squeezed(text: str) -> str:
    """Return a text without all that molecule puts between its words."""
    return re.sub(r"[\s│]+", "", text)


def listed() -> list[Mutation]:
    """Return all mutations."""
    return [Mutation(**entry) for entry in yaml.safe_load(LIST.read_text(encoding="utf-8"))]


def together(mutations: list[Mutation]) -> Iterator[list[Mutation]]:
    """Yield what is broken in one copy: a unit test is quick, and a scenario takes minutes for several."""

    # Long ones first, and those of one scenario, which wait for each other, apart.
    def group(mutation: Mutation) -> tuple[bool, bool, str, str]:
        unit = mutation.part == "unit"
        return unit, mutation.alone, mutation.part, mutation.breaks if mutation.alone or unit else ""

    for _key, found in groupby(sorted(mutations, key=group), group):
        yield list(found)


def copy(folder: Path) -> None:
    """Copy what git knows, or would, and give the copy its place under the collection's name."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (CHECKOUT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    # Molecule finds its configuration at the top of a repository.
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    link = folder / COLLECTION
    link.parent.mkdir(parents=True)
    link.symlink_to(folder)


def run(number: int, mutations: list[Mutation], turns: dict[str, threading.Lock], environment: dict[str, str]) -> int:
    """Run the part that must fail and return how many of the mutations it did not notice."""
    part = KNOWN[mutations[0].part]
    folder = MUTANTS / str(number)
    copy(folder)
    for mutation in mutations:
        mutation.apply(folder)
    unit = part.name == "unit"
    command = f"pytest --quiet {mutations[0].fails.partition('::')[0]}" if unit else part.command
    log = folder.with_suffix(".log")
    with turns[part.name]:  # the hosts of a scenario have one name
        start = time.monotonic()
        status = execute(command, folder, log, environment, part.minutes)
    text = ANSI.sub("", log.read_text(errors="replace"))
    missed = 0
    for mutation in mutations:
        noticed = status != 0 and mutation.noticed(text)
        missed += not noticed
        verdict = "noticed" if noticed else "MISSED "
        print(f"{verdict}  {mutation.role}: {mutation.breaks}  ({part.name}: {mutation.fails})", flush=True)
    if missed:
        print(f"         `{command}` ended with status {status}; its log: {log.relative_to(CHECKOUT)}", flush=True)
    elif not unit:
        print(f"         {part.name}, {time.monotonic() - start:.0f} s", flush=True)
    return missed


def main() -> int:
    """Run what the arguments ask for and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--part", action="append", choices=sorted({one.part for one in listed()}), help="only this part"
    )
    arguments = parser.parse_args()
    mutations = [one for one in listed() if not arguments.part or one.part in arguments.part]
    environment = environment_of_tests(dict(os.environ))
    turns: dict[str, threading.Lock] = defaultdict(threading.Lock)
    MUTANTS.mkdir(parents=True, exist_ok=True)

    def run_all() -> int:
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            runs = [
                pool.submit(run, number, group, turns, environment) for number, group in enumerate(together(mutations))
            ]
            return sum(run.result() for run in runs)

    if any(KNOWN[one.part].needs_sandbox for one in mutations):
        with sandbox(environment):
            missed = run_all()
    else:
        missed = run_all()
    print(f"\n{len(mutations) - missed} passed, {missed} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
