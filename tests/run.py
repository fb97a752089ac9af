# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every part of the proof, two at a time, and end with a table and the line `N passed, N failed`.

`make test` runs what every change must hold, `make test-all` all there is, `make test-fast` what needs no Docker. A
part is one command; what it prints goes to .build/logs/PART.log, and the end of that is shown when it fails, with the
command that repeats the part alone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.environment import enter

CHECKOUT = Path(__file__).resolve().parents[1]
LOGS = CHECKOUT / ".build" / "logs"
COLLECTION = ".build/collections/ansible_collections/neuronops/vllm"
AT_A_TIME = 2
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# What a part says that it tried, with the seed that chose it.
TRIED = re.compile(
    r"^(\d+ foreign inputs tried, seed \d+|boundaries killed \d+, .*, seed \d+|stack change over \d+ hosts .*)$",
    re.MULTILINE,
)
# Molecule draws a line before what the programs it runs print.
PYTEST_SUMMARY = re.compile(r"^[ │]*(?:=+ )?(\d+ (?:passed|failed|error|skipped).*?) in [\d.]+s", re.MULTILINE)
# A sandbox of its own, so that one left by `make demo KEEP=1` is not in the way.
SANDBOX = {"NEURONOPS_SANDBOX_NAME": "neuronops-test", "NEURONOPS_SANDBOX_SUBNET": "10.208.0.0/24"}
# Seconds. Docker answers when a host of many gigabytes is gone: over a minute on a disk that does other work.
DOCKER = {"DOCKER_TIMEOUT": "600"}


@dataclass(frozen=True)
class Part:
    """One command of the proof."""

    name: str
    command: str
    needs_sandbox: bool = False
    minutes: int = 10  # after which it has failed


@dataclass(frozen=True)
class Result:
    """What a part came to: the tests it counted, or itself as one."""

    part: Part
    passed: int
    failed: int
    seconds: float
    not_run: bool = False
    tried: tuple[str, ...] = ()  # how much it tried, in its own words
    end: tuple[str, ...] = ()  # the last that it said when it failed


# What the readers of signatures are compared with.
FUZZ_TOOLS = "requirements/tools.sh gpg gpgv sqv"
COVERAGE = "--cov=plugins --cov-report=term --cov-fail-under=90"

LINT = Part("ansible-lint", "ansible-lint --offline")
UNIT = Part("unit", f"pytest tests/unit -m 'not thorough' {COVERAGE}", minutes=40)
FAST = [
    LINT,
    Part("yamllint", "yamllint --strict ."),
    Part("ruff", "ruff check . && ruff format --check ."),
    Part("mypy", "mypy plugins/plugin_utils sandbox tests"),
    Part("changelog", "antsibull-changelog lint"),
    Part("docs", f"antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck {COLLECTION}"),
    Part("docs-site", "docs/site/build.sh"),
    UNIT,
    Part("fuzz", f"{FUZZ_TOOLS} && pytest tests/fuzz", minutes=20),
]
# The demonstration removes its sandbox at the end, so it has one of its own.
DEMO = "NEURONOPS_SANDBOX_NAME=neuronops-test-demo NEURONOPS_SANDBOX_SUBNET=10.208.1.0/24"
BUILD = "tests/artifact.sh .build/{0} && tests/{0}.sh .build/{0}"


def core(version: str, python: str) -> Part:
    return Part(f"core-{version}", f"tests/core.sh {version} {python}", needs_sandbox=True, minutes=25)


def core_installed(version: str, python: str) -> Part:
    """What a user has: the artifact, installed into an empty folder; with the light stack."""
    return Part(
        f"core-{version}-installed", f"tests/core.sh {version} {python} installed", needs_sandbox=True, minutes=25
    )


def core_unit(version: str, python: str) -> Part:
    """The unit tests alone, without those that take long."""
    return Part(f"core-{version}-unit", f"tests/core.sh {version} {python} unit", minutes=30)


def molecule(*scenarios: str) -> Part:
    """Scenarios, of which each goes on with the hosts of the one before."""
    commands = [f"molecule test --scenario-name {name}" for name in scenarios]
    if len(scenarios) > 1:  # `never` leaves out the destroying at a scenario's start as well
        destroy = [f"molecule destroy --scenario-name {name}" for name in scenarios]
        commands = [*destroy, *(f"{command} --destroy never" for command in commands), *destroy]
    return Part(
        "molecule-" + "-".join(scenarios), " && ".join(commands), needs_sandbox=True, minutes=30 + 15 * len(scenarios)
    )


def faults(scenario: str) -> Part:
    """A scenario's side effects, on hosts that were converged."""
    return Part(f"molecule-{scenario}-faults", f"python -m tests.faults {scenario}", needs_sandbox=True, minutes=45)


# Long ones first, so that the two workers end at about the same time, but those with hosts of many gigabytes apart: the
# disk has no room for more than two of them.
SLOW = [
    molecule("default", "vllm_server"),  # site.yml from a bare host a second time would tell nothing more
    molecule("vllm", "transformers_neuronx"),  # the first leaves what the second is about
    Part("demo", f"{DEMO} python -m sandbox.demo", minutes=45),
    core_unit("2.17", "3.10"),
    UNIT,
    Part("server", "pytest tests/server -m 'not thorough'", needs_sandbox=True, minutes=40),
    core_installed("2.21", "3.13"),
    Part("launch", "pytest tests/fleet -m 'not thorough'", minutes=30),
    molecule("neuron_driver"),
    molecule("nxd_inference"),
    molecule("vllm_proxy"),
    molecule("neuron_monitoring"),
    # The one plugin whose real code everybody can have.
    Part("served-optimum", "pytest tests/served --backend optimum_neuron", minutes=30),
    Part("hostile", "pytest tests/hostile", minutes=10),
    LINT,
    Part("sanity", BUILD.format("sanity")),
    Part("galaxy_importer", BUILD.format("galaxy_importer")),
    Part("awx", "pytest tests/awx"),
]
# What else there is to prove: `make test-all`.
LONG = [
    Part("kill-all", "NEURONOPS_KILL=all pytest tests/kill", minutes=600),
    Part("unit-all", f"pytest tests/unit {COVERAGE}", minutes=40),
    Part("launch-all", "pytest tests/fleet", minutes=30),
    Part("server-all", "pytest tests/server", needs_sandbox=True, minutes=60),
    Part("served", "pytest tests/served --all", minutes=60),
    Part("newcomer", "pytest tests/newcomer", minutes=40),
    Part("bake", "pytest tests/bake", minutes=40),
    Part("pull", "pytest tests/pull", minutes=40),
    Part("fuzz-long", f"{FUZZ_TOOLS} && NEURONOPS_FUZZ=20000 pytest tests/fuzz", minutes=45),
    *(molecule(name) for name in ("neuron_venv", "hardened", "upgrade", "oldest")),
    *(faults(name) for name in ("neuron_driver", "neuron_venv", "transformers_neuronx", "vllm", "vllm_server")),
    core("2.21", "3.13"),
    core("2.20", "3.12"),
    core("2.18", "3.11"),
    core("2.17", "3.10"),
    Part("vm", "pytest tests/vm --exitfirst --durations=0", needs_sandbox=True, minutes=45),
]
# A role's scenario alone, from a bare host; what tests/hostile starts from a shell that is in the way.
SHORT = "tests/unit/test_wheel_store.py tests/unit/test_stacks.py tests/fleet/test_launch.py"
ALONE = [
    *(molecule(name) for name in ("default", "vllm_server", "vllm", "transformers_neuronx")),
    Part("kill", "pytest tests/kill -m 'not thorough'", minutes=45),
    Part("short", f"pytest {SHORT} -k 'not test_launch or launch_groups or negative'"),
]

# Of these `make test-all` has the whole, under another name.
IN_OTHERS = ("unit", "launch", "server", "core-2.17-unit", "core-2.21-installed", "served-optimum")
KNOWN = {part.name: part for part in SLOW + FAST + LONG + ALONE}

NOT_RUN = 77  # a part's exit status when this machine lacks what it needs; its log says what


def count(part: Part, log: str, exit_status: int) -> tuple[int, int]:
    """Return the passed and failed tests in a part's log; a part without pytest is one test."""
    counted = re.findall(r"(\d+) (passed|failed|error)", " ".join(PYTEST_SUMMARY.findall(ANSI.sub("", log))))
    passed = sum(int(number) for number, outcome in counted if outcome == "passed")
    failed = sum(int(number) for number, outcome in counted if outcome != "passed")
    if exit_status == NOT_RUN:
        return 0, 0
    if exit_status != 0:
        return passed, max(failed, 1)
    return max(passed, 1), failed


def tried(log: str) -> list[str]:
    """Return what a part says that it tried and measured, of foreign inputs or of runs that were cut off."""
    return [match[1] for match in TRIED.finditer(ANSI.sub("", log))]


def last(log: str) -> list[str]:
    """Return the last that a part said, for the end of the whole run: logs are often kept by their ends alone."""
    return [line[:300] for line in ANSI.sub("", log).splitlines() if line.strip()][-10:]


class Stop:
    """Ctrl-C or the signal of a CI that has lost patience: what runs is ended, what waits is not begun."""

    def __init__(self) -> None:
        self.wanted = threading.Event()

    def __call__(self, *_signal: object) -> None:
        self.wanted.set()

    def wait(self, process: subprocess.Popen[bytes], seconds: float) -> int:
        """Return the exit status; raise TimeoutExpired when the time is up or a stop is wanted."""
        end = time.monotonic() + seconds
        while (status := process.poll()) is None:
            if self.wanted.wait(0.2) or time.monotonic() > end:
                raise subprocess.TimeoutExpired(process.args, seconds)
        return status


STOP = Stop()


def execute(command: str, folder: Path, log: Path, environment: dict[str, str], minutes: int) -> int:
    """Run a command of bash to its end or its time limit, with nothing of it left running; return its exit status."""
    if STOP.wanted.is_set():
        log.write_text("Not begun, as the run was stopped.\n")
        return -1
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return STOP.wait(process, minutes * 60)
        except subprocess.TimeoutExpired:
            why = "as the run was stopped" if STOP.wanted.is_set() else f"after {minutes} minutes"
            output.write(f"\nStopped {why}.\n".encode())
            return -1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


def run(part: Part, environment: dict[str, str]) -> Result:
    """Run one part and say how it went."""
    log = LOGS / f"{part.name}.log"
    start = time.monotonic()
    exit_status = execute(part.command, CHECKOUT, log, environment, part.minutes)
    seconds = time.monotonic() - start
    text = log.read_text(errors="replace")
    not_run = exit_status == NOT_RUN
    passed, failed = count(part, text, exit_status)
    end = last(text) if failed else []
    result = Result(part, passed, failed, seconds, not_run=not_run, tried=tuple(tried(text)), end=tuple(end))
    verdict = "failed" if result.failed else "not run" if result.not_run else "passed"
    print(f"{verdict}  {part.name}  ({seconds:.0f} s)", flush=True)
    if result.not_run:
        print(text.strip().splitlines()[-1])
    if result.failed:
        print("\n".join(text.splitlines()[-60:]))
        print(f"The whole log: {log.relative_to(CHECKOUT)}. Repeat it: make test-part PART={part.name}", flush=True)
    return result


def environment_of_tests(own: dict[str, str]) -> dict[str, str]:
    """Return the environment that the parts run in."""
    state = f"{own['NEURONOPS_CACHE']}/sandbox/{SANDBOX['NEURONOPS_SANDBOX_NAME']}"
    return {**own, **SANDBOX, **DOCKER, "NEURONOPS_SANDBOX_STATE": state}


@contextmanager
def sandbox(environment: dict[str, str]) -> Iterator[None]:
    """Have the sandbox's image and repositories while the parts that need them run."""
    print("Starting the sandbox ...", flush=True)
    command = [sys.executable, "-m", "sandbox"]
    up = [*command, "up", "--no-ec2", "--system", "debian11", "--system", "debian13"]
    if subprocess.run(up, cwd=CHECKOUT, env=environment, check=False).returncode:
        raise SystemExit("The sandbox did not start; the reason stands above.\n\n0 passed, 1 failed")
    try:
        yield
    finally:
        subprocess.run([*command, "down"], cwd=CHECKOUT, env=environment, check=True)


def run_all(parts: list[Part], environment: dict[str, str]) -> list[Result]:
    """Run the parts side by side, in the order given."""
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda part: run(part, environment), parts))


def main() -> int:
    """Run what the arguments ask for and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fast", action="store_true", help="only the parts that need no Docker")
    parser.add_argument("--all", action="store_true", help="the long parts as well")
    parser.add_argument("--part", action="append", choices=KNOWN, help="only this part")
    arguments = parser.parse_args()
    parts = FAST if arguments.fast else SLOW + [part for part in FAST if part not in SLOW]
    if arguments.all:  # which have all that these have a part of
        parts = [part for part in parts if part.name not in IN_OTHERS] + LONG
    if arguments.part:
        parts = [KNOWN[name] for name in arguments.part]

    enter()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, STOP)
    start = time.monotonic()
    LOGS.mkdir(parents=True, exist_ok=True)
    environment = environment_of_tests(dict(os.environ))
    if any(part.needs_sandbox for part in parts):
        with sandbox(environment):
            results = run_all(parts, environment)
    else:
        results = run_all(parts, environment)

    print(f"\n{'part':28} {'passed':>7} {'failed':>7} {'seconds':>8}")
    for result in results:
        note = "  not run" if result.not_run else ""
        print(f"{result.part.name:28} {result.passed:7} {result.failed:7} {result.seconds:8.0f}{note}")
    passed, failed = sum(result.passed for result in results), sum(result.failed for result in results)
    print(f"{'all, ' + str(AT_A_TIME) + ' at a time':28} {passed:7} {failed:7} {time.monotonic() - start:8.0f}\n")
    for result in results:
        for line in result.tried:
            print(f"{result.part.name}: {line}")
    for result in results:
        for line in result.end:
            print(f"{result.part.name}: {line}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
