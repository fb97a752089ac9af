# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the sandbox on which runs of the light stack are cut off, and what an undisturbed run comes to.

A series is a step in the life of a host: first install, upgrade, rollback, and the driver by itself. Each is run once
undisturbed; the host before it is kept as an image, from which every trial starts anew.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import hosts, image
from sandbox.engine import docker
from sandbox.fleet import CHECKOUT, recap
from sandbox.repositories import faults
from sandbox.settings import SandboxError, Settings
from tests.kill.client import Client, longest_gap, lost

SEED = int(os.environ.get("NEURONOPS_SEED") or datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d"))
HERE = Path(__file__).parent
LOGS = CHECKOUT / ".build" / "logs" / "kill"
PORT = 8000
KEY = "the-light-key"
ROLLBACK = CHECKOUT / "playbooks" / "rollback.yml"
RELEASES = "/opt/neuronops/releases"
LINK = "/opt/aws_neuron_venv_pytorch"
RUN_SECONDS = 900
# So much longer than the server's own restart may a client go without an answer, on a machine that does other work.
# A server that is down until the next run, or until systemd tries again after ten seconds, is away for longer.
SLACK_SECONDS = 6.0
# Tasks that run nothing on a host.
OF_THE_CONTROLLER = {
    "add_host", "assert", "debug", "fail", "group_by", "import_playbook", "import_role", "import_tasks", "include_role",
    "include_tasks", "include_vars", "meta", "set_fact", "set_stats", "validate_argument_spec", "options",
}  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One step: what the host had before it, and the run that takes it on."""

    name: str
    before: str
    stack: str
    arguments: tuple[str, ...]
    serves: bool  # whether a client was served before it


SKIP = ("--skip-tags", "neuron_driver")
SERIES = {
    series.name: series
    for series in (
        Series("driver", "", "light-1", ("--tags", "neuron_driver"), serves=False),
        Series("install", "", "light-1", SKIP, serves=False),
        Series("upgrade", "install", "light-2", SKIP, serves=True),
        Series("rollback", "upgrade", "light-1", SKIP, serves=True),
    )
}


@dataclass(frozen=True)
class Machine:
    """A host of the light stack."""

    name: str
    address: str
    container: str

    def said(self, *command: str, stdin: str = "") -> str:
        """What a command says on the host, as root; raises SandboxError where it fails."""
        return docker("exec", "--interactive", self.container, *command, stdin=stdin.encode())


@dataclass(frozen=True)
class Run:
    """One run of a playbook."""

    status: int
    output: str
    boundaries: list[dict[str, Any]]  # what the callback wrote

    @property
    def changed(self) -> int:
        return sum(counts["changed"] for counts in recap(self.output.splitlines()).values())

    @property
    def end(self) -> str:
        """The end of what it said, for a person."""
        return "\n".join(self.output.splitlines()[-40:])

    def on_the_host(self) -> list[int]:
        """The boundaries before tasks that ran something on the host."""
        ran = {line["ran"] for line in self.boundaries if "ran" in line}
        return [
            line["number"]
            for line in self.boundaries
            if line.get("number") in ran and line["action"].rpartition(".")[2] not in OF_THE_CONTROLLER
        ]

    def apart(self) -> list[int]:
        """The boundaries at which there is something else on disk than at the one before them, as far as can be told.

        Where two tasks run nothing on a host, what a controller that ends between them leaves is the same as before
        the first: they are one boundary.
        """
        return [1, *(number + 1 for number in self.on_the_host()[:-1])]


@dataclass(frozen=True)
class Reference:
    """What a series comes to when nobody disturbs it."""

    run: Run
    state: dict[str, Any]
    image: str
    controller: Path
    restart_seconds: float  # for how long a client is not served when the server is just restarted


@dataclass
class Tally:
    """What was tried in a session."""

    killed: int = 0
    survived: int = 0
    faults: int = 0
    faults_survived: int = 0
    lost: int = 0
    gap: float = 0.0
    restart: float = 0.0
    more: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def say(self, line: str) -> None:
        """Have a line printed at the end of the session."""
        with self.lock:
            self.more.append(line)

    def lines(self, seed: int) -> list[str]:
        """What was tried, for the end of the session."""
        return [
            *self.more,
            f"boundaries killed {self.killed}, survived {self.survived}; "
            f"faults tried {self.faults}, survived {self.faults_survived}; "
            f"requests lost {self.lost} (longest gap {self.gap:.1f} s; "
            f"an undisturbed restart takes {self.restart:.1f} s), seed {seed}",
        ]


@dataclass(frozen=True)
class Outcome:
    """How a trial went: where it was cut off, and what is wrong with what came of it."""

    place: str
    problems: list[str]


def differences(wanted: Any, found: Any, at: str = "") -> list[str]:
    """Where two states differ, one line for each place."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        lines = []
        for key in sorted({*wanted, *found}):
            lines += differences(wanted.get(key), found.get(key), f"{at}/{key}")
        return lines
    if isinstance(wanted, list) and isinstance(found, list):
        gone, new = [x for x in wanted if x not in found], [x for x in found if x not in wanted]
        return [f"{at}: lacks {gone}, and has {new} more"] if gone or new else []
    return [] if wanted == found else [f"{at}: {found} and not {wanted}"]


class Lab:
    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.tally = Tally()
        self._lock = threading.Lock()
        self._locks = {name: threading.Lock() for name in SERIES}
        self._references: dict[str, Reference] = {}
        # The lower half is given out by name; what starts without one gets the upper.
        lower = next(iter(settings.subnet.subnets(prefixlen_diff=1)))
        self._addresses = [str(address) for address in list(lower.hosts())[8:]]
        self._started = 0
        shutil.rmtree(LOGS, ignore_errors=True)
        LOGS.mkdir(parents=True)

    # Hosts

    @contextlib.contextmanager
    def machine(self, of_image: str = "", name: str = "light") -> Iterator[Machine]:
        """A host that has started, from the bare image or from one that was kept."""
        with self._lock:
            self._started += 1
            number, address = self._started, self._addresses.pop(0)
        host = hosts.Host(
            f"{name}-{number}", address, "inf2.xlarge", of_image or f"{self.settings.image}:{image.DEFAULT_SYSTEM}",
            (self.settings.state / "id_ed25519.pub").read_text(), {},
        )  # fmt: skip
        machine = Machine(name, address, hosts.container_name(self.settings, host.name))
        try:
            hosts.start(self.settings, host)
            docker("exec", machine.container, "systemctl", "is-system-running", "--wait", check=False)
            yield machine
        finally:
            docker("rm", "--force", "--volumes", machine.container, check=False)
            for control in self._connections(machine).glob("*"):
                command = ["ssh", "-o", f"ControlPath={control}", "-O", "exit", "host"]
                subprocess.run(command, capture_output=True, check=False)
            shutil.rmtree(self._connections(machine), ignore_errors=True)
            self.fault(machine)
            with self._lock:
                self._addresses.append(address)

    def _connections(self, machine: Machine) -> Path:
        return hosts.connections(self.settings) / machine.address

    def fault(self, machine: Machine, **values: str) -> None:
        """Have the repositories do this to the host alone; nothing ends it."""
        faults.write(self.settings.served, values, client=machine.address)

    def observe(self, machine: Machine) -> dict[str, Any]:
        """What the host has come to."""
        program = (HERE / "on_host" / "state.py").read_text()
        found: dict[str, Any] = json.loads(machine.said("python3", "-", KEY, image.MODEL, stdin=program))
        return found

    def wait_until_served(self, machine: Machine) -> None:
        """Return when the server on the host answers."""
        client = self.client(machine)
        deadline = time.monotonic() + 60
        while not client.answers():
            if time.monotonic() > deadline:
                raise SandboxError(f"{machine.container} does not serve after a minute.")
            time.sleep(0.2)

    def client(self, machine: Machine) -> Client:
        return Client(machine.address, PORT, KEY, image.MODEL)

    # Runs

    def controller(self, before: Path | None) -> Path:
        """A folder for an inventory and what lies beside it, as the run before has left it."""
        with self._lock:
            self._started += 1
            folder = self.folder / f"controller-{self._started}"
        if before and before.exists():
            shutil.copytree(before, folder, symlinks=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def command(self, series: Series) -> list[str]:
        """The playbook of a series, with its options."""
        if series.name == "rollback" and ROLLBACK.exists():
            active = self.reference("install").state["link"].rpartition("/")[2]
            return [str(ROLLBACK.relative_to(CHECKOUT)), "-e", f"rollback_to={active}"]
        return ["playbooks/site.yml", *series.arguments]

    def run(
        self,
        controller: Path,
        machines: list[Machine],
        stack: str,
        command: list[str],
        log: str,
        *,
        boundary: int = 0,
        program: list[str] | None = None,
        seconds: int = RUN_SECONDS,
        environment: dict[str, str] | None = None,
    ) -> Run:
        """Run a playbook over the hosts; cut off at the boundary, or with the program started there."""
        lines = [f"{machine.name} ansible_host={machine.address} ansible_user=ubuntu" for machine in machines]
        (controller / "hosts").write_text("\n".join(["[neuron]", *lines, ""]))
        variables = {
            "neuron_stack": stack,
            "vllm_server_host": "0.0.0.0",  # noqa: S104 - the sandbox's network
            "vllm_server_expose": True,
            "vllm_server_api_key": KEY,
        }
        boundaries = controller.with_suffix(".boundaries")
        boundaries.unlink(missing_ok=True)
        boundaries.touch()
        own = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
        connections = self._connections(machines[0])
        connections.mkdir(parents=True, exist_ok=True)
        ansible = {
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
            "ANSIBLE_PRIVATE_KEY_FILE": str(self.settings.state / "id_ed25519"),
            "ANSIBLE_SSH_COMMON_ARGS": f"-o UserKnownHostsFile={self.settings.state / 'known_hosts'}",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(connections),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback"),
            "NEURONOPS_BOUNDARIES": str(boundaries),
            "NEURONOPS_BOUNDARY": str(boundary),
            "NEURONOPS_AT_BOUNDARY": json.dumps(program or []),
        }
        arguments = [
            "ansible-playbook", "-i", str(controller / "hosts"), "-e", f"@{self.settings.variables_file}",
            "-e", "@sandbox/light.yml", "-e", json.dumps(variables), *command,
        ]  # fmt: skip
        path = LOGS / f"{log}.log"
        with path.open("ab") as output:
            output.write(f"\n$ {shlex.join(arguments)}\n".encode())
            output.flush()
            start = output.tell()
            process = subprocess.Popen(
                arguments, cwd=CHECKOUT, env={**own, **ansible, **(environment or {})}, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                status = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                status = -1
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        said = path.read_bytes()[start:].decode(errors="replace")
        return Run(status, said, [json.loads(line) for line in boundaries.read_text().splitlines()])

    # Series

    def reference(self, name: str) -> Reference:
        """What a series comes to undisturbed; run the first time that it is asked for."""
        series = SERIES[name]
        before = self.reference(series.before) if series.before else None
        with self._locks[name]:
            if name not in self._references:
                self._references[name] = self._undisturbed(series, before)
            return self._references[name]

    def _undisturbed(self, series: Series, before: Reference | None) -> Reference:
        controller = self.controller(before.controller if before else None)
        with self.machine(before.image if before else "") as machine:
            if series.serves:
                self.wait_until_served(machine)
            with self.client(machine) as client:
                done = self.run(controller, [machine], series.stack, self.command(series), f"undisturbed-{series.name}")
            if done.status:
                raise SandboxError(f"The undisturbed run of {series.name} failed:\n{done.end}")
            state = self.observe(machine)
            restart = 0.0
            if series.serves:
                with self.client(machine) as restarted:
                    time.sleep(2)
                    machine.said("systemctl", "restart", "vllm.service")
                    self.wait_until_served(machine)
                    time.sleep(2)
                restart = longest_gap(restarted.requests)
                gap = longest_gap(client.requests)
                with self.tally.lock:
                    self.tally.restart = max(self.tally.restart, restart)
                if gap > restart + SLACK_SECONDS:
                    raise SandboxError(
                        f"An undisturbed {series.name} takes {gap:.1f} s from a client, a restart {restart:.1f} s."
                    )
            kept = f"{self.settings.image}:kill-{series.name}"
            docker("commit", machine.container, kept)
        return Reference(done, state, kept, controller, restart)

    # Trials

    def trial(
        self,
        place: str,
        series: Series,
        disturb: Callable[[Machine, Path, str], list[str]],
    ) -> Outcome:
        """Start as the series does, let a run be disturbed, and see that the next ends as an undisturbed one."""
        reference = self.reference(series.name)
        before = self.reference(series.before) if series.before else None
        log = place.replace(":", "-").replace(" ", "-")
        controller = self.controller(before.controller if before else None)
        with self.machine(before.image if before else "") as machine:
            if series.serves:
                self.wait_until_served(machine)
            with self.client(machine) as client:
                problems = disturb(machine, controller, log)
                problems += self.converges([machine], controller, series, reference.state, log)
                if series.serves:
                    time.sleep(2)
        if series.serves:
            gap = longest_gap(client.requests)
            with self.tally.lock:
                self.tally.lost += lost(client.requests)
                self.tally.gap = max(self.tally.gap, gap)
        shutil.rmtree(controller)
        if not problems:
            (LOGS / f"{log}.log").unlink()
        return Outcome(place, problems)

    def converges(
        self, machines: list[Machine], controller: Path, series: Series, wanted: dict[str, Any], log: str
    ) -> list[str]:
        """What is wrong with the next run and the one after it: nothing, when all is as after an undisturbed run."""
        after = self.run(controller, machines, series.stack, self.command(series), log)
        if after.status:
            return [f"The next run failed with status {after.status}:\n{after.end}"]
        problems = []
        for machine in machines:
            found = self.observe(machine)
            problems += [f"After the next run, {machine.name}{line}" for line in differences(wanted, found)]
        again = self.run(controller, machines, series.stack, self.command(series), log)
        if again.status or again.changed:
            problems.append(f"The run after it ended with status {again.status}, changed={again.changed}:\n{again.end}")
        return problems

    def kill(self, name: str, how: str, boundary: int) -> Outcome:
        """Cut a run off at a boundary: the controller's processes, or what they run on the host."""
        series, place = SERIES[name], f"{name}:{how}:{boundary}"
        chance = random.Random(f"{SEED} {place}")  # noqa: S311 - nothing is secret here

        def disturb(machine: Machine, controller: Path, log: str) -> list[str]:
            with self.client(machine) as client:
                problems = self._cut_off(machine, controller, series, how, boundary, log, chance)
                if series.serves:
                    self.wait_until_served(machine)
            gap, limit = longest_gap(client.requests), self.reference(name).restart_seconds + SLACK_SECONDS
            if series.serves and gap > limit:
                problems.append(
                    f"A client was not served for {gap:.1f} s; a restart, with time to spare, takes {limit:.1f} s."
                )
            return problems

        outcome = self.trial(place, series, disturb)
        with self.tally.lock:
            self.tally.killed += 1
            self.tally.survived += not outcome.problems
        return outcome

    def _cut_off(
        self,
        machine: Machine,
        controller: Path,
        series: Series,
        how: str,
        boundary: int,
        log: str,
        chance: random.Random,
    ) -> list[str]:
        command = self.command(series)
        if how == "controller":
            run = self.run(controller, [machine], series.stack, command, log, boundary=boundary)
            return (
                []
                if run.status == -signal.SIGKILL
                else [f"The run was not ended, its status is {run.status}:\n{run.end}"]
            )
        # Most tasks are short, and some take many seconds.
        delay = chance.random() ** 3 * 3
        counted = controller.with_suffix(".ended")
        watching = (
            f"docker exec -i {machine.container} python3 - {delay:.3f} < {shlex.quote(str(HERE))}/on_host/killer.py"
        )
        program = ["bash", "-c", f"{watching} | tee {shlex.quote(str(counted))}"]
        machine.said("touch", "/run/neuronops-killer")
        run = self.run(controller, [machine], series.stack, command, log, boundary=boundary, program=program)
        machine.said("rm", "-f", "/run/neuronops-killer")
        if run.status == -1:
            return [
                f"The run did not end within {RUN_SECONDS} s after its processes on the host were ended:\n{run.end}"
            ]
        deadline = time.monotonic() + 10
        while (said := counted.read_text().split() if counted.exists() else []) == ["watching"] or not said:
            if time.monotonic() > deadline:
                return [f"Nothing watched the host at boundary {boundary}, and the run ended:\n{run.end}"]
            time.sleep(0.1)
        return [] if int(said[-1]) else [f"Nothing of the run was on the host after boundary {boundary}."]
