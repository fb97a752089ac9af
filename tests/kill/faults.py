# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong around a run, each as one function: how it is made, what the user must read, and how it ends.

What is common to all stands in Lab.trial: after the fault the next run ends as an undisturbed one, and the one after it
changes nothing. docs/faults.md has a row for each.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sandbox.fleet import CHECKOUT
from sandbox.repositories.light import BROKEN
from sandbox.settings import SandboxError
from tests.kill.client import longest_gap, lost
from tests.kill.lab import HERE, SERIES, Lab, Machine, Outcome, Run

FAULTS: dict[str, Callable[[Lab, str], Outcome]] = {}
# uv gives up a silent server after this many seconds, and without trying again; its defaults are 30 and 3.
# What it has in its cache it does not ask for: an index for ten minutes, a file of a known hash never again.
FRESH = {"UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0", "UV_CACHE_DIR": "/var/tmp/uv-cache"}  # noqa: S108 - the host's
CLOCK = "/usr/local/lib/behind.so"


def fault(name: str) -> Callable[[Callable[[Lab, str], Outcome]], Callable[[Lab, str], Outcome]]:
    """Name a fault."""

    def add(function: Callable[[Lab, str], Outcome]) -> Callable[[Lab, str], Outcome]:
        FAULTS[name] = function
        return function

    return add


# What a fault has to do with, where it is not part of every checkout.
NEEDS = {"two-controllers": CHECKOUT / "plugins" / "modules" / "host_lock.py"}


def possible() -> list[str]:
    """The names of the faults that can be tried here."""
    return [name for name in FAULTS if name not in NEEDS or NEEDS[name].exists()]


def try_fault(lab: Lab, name: str) -> Outcome:
    """Try a fault, and count it."""
    outcome = FAULTS[name](lab, f"fault:{name}")
    with lab.tally.lock:
        lab.tally.faults += 1
        lab.tally.faults_survived += not outcome.problems
    return outcome


def variables(**values: Any) -> list[str]:
    """Options for a run, as a user gives them."""
    return ["-e", json.dumps(values)]


def environment_of_uv(values: dict[str, str]) -> list[str]:
    return variables(neuron_venv_environment=values, vllm_environment=values)


def reads(run: Run, words: str) -> list[str]:
    """What is wrong with a run that had to fail and to say something of this form."""
    said = " ".join(run.output.split())
    if run.status == 0:
        return [f"The run did not fail:\n{run.end}"]
    if run.status < 0:
        return [f"The run did not end by itself:\n{run.end}"]
    return [] if re.search(words, said) else [f"The run does not say {words!r}:\n{run.end}"]


def fails(
    lab: Lab,
    place: str,
    name: str,
    words: str,
    make: Callable[[Machine, Path], object],
    undo: Callable[[Machine], object],
    more: list[str] | None = None,
) -> Outcome:
    """A fault with which a run fails, says why, and leaves what serves as it is."""
    series = SERIES[name]

    def disturb(machine: Machine, controller: Path, log: str) -> list[str]:
        make(machine, controller)
        before = lab.observe(machine)
        command = [*lab.command(series), *(more or [])]
        problems = reads(lab.run(controller, [machine], series.stack, command, log), words)
        after = lab.observe(machine)
        for part in ("link", "answers", "unit"):
            if series.serves and before[part] != after[part]:
                problems.append(f"With the fault, {part} became {after[part]}, and was {before[part]}.")
        undo(machine)
        return problems

    return lab.trial(place, series, disturb)


def switched(lab: Lab, place: str, name: str, words: str, more: list[str] | None = None, **switches: str) -> Outcome:
    """A fault of the repositories."""

    def make(machine: Machine, _: Path) -> None:
        lab.fault(machine, **switches)

    return fails(lab, place, name, words, make, lab.fault, more)


@fault("apt-repository-down")
def apt_repository_down(lab: Lab, place: str) -> Outcome:
    return switched(lab, place, "driver", r"apt\.repos\.neuron\.amazonaws\.com", apt="down")


@fault("wrong-key")
def wrong_key(lab: Lab, place: str) -> Outcome:
    return switched(lab, place, "driver", r"(?i)fingerprint", key="wrong")


@fault("index-down")
def index_down(lab: Lab, place: str) -> Outcome:
    return switched(lab, place, "upgrade", r"pip\.repos\.neuron\.amazonaws\.com", environment_of_uv(FRESH), pip="down")


@fault("index-stalls")
def index_stalls(lab: Lab, place: str) -> Outcome:
    return switched(
        lab, place, "upgrade", r"(?i)pip\.repos\.neuron\.amazonaws\.com.*(time|timed) ?out|operation timed out",
        environment_of_uv(FRESH), pip="stalled",
    )  # fmt: skip


def damaged_wheel(lab: Lab, place: str, how: str, words: str) -> Outcome:
    """The locks are there, as in a fleet that keeps them: only the files come damaged."""

    def make(machine: Machine, controller: Path) -> None:
        kept = lab.reference("upgrade").controller / ".neuronops" / "locks"
        shutil.copytree(kept, controller / ".neuronops" / "locks", dirs_exist_ok=True)
        lab.fault(machine, wheel=how)

    return fails(lab, place, "upgrade", words, make, lab.fault, environment_of_uv(FRESH))


@fault("truncated-wheel")
def truncated_wheel(lab: Lab, place: str) -> Outcome:
    return damaged_wheel(lab, place, "truncated", r"Failed to download")


@fault("changed-byte")
def changed_byte(lab: Lab, place: str) -> Outcome:
    return damaged_wheel(lab, place, "corrupt", r"(?i)Failed to (download|read|extract)|hash mismatch")


@fault("git-gone")
def git_gone(lab: Lab, place: str) -> Outcome:
    return switched(lab, place, "upgrade", r"git repository \S+ cannot be read", git="closed")


def small_disk(lab: Lab, place: str, words: str, more: list[str]) -> Outcome:
    """The releases are on a disk of their own, with two megabytes left."""

    def make(machine: Machine, _: Path) -> None:
        script = """
            set -e
            mkdir -p /mnt/disk && mount -t tmpfs -o size=1200m,mode=755 tmpfs /mnt/disk
            cp -a /opt/neuronops/. /mnt/disk/ && mount --bind /mnt/disk /opt/neuronops
            systemctl restart vllm.service
            free=$(df --output=avail -k /opt/neuronops | tail -1)
            dd if=/dev/zero of=/opt/neuronops/filling bs=1k count=$((free - 2048)) status=none
        """
        machine.said("sh", "-c", script)
        lab.wait_until_served(machine)

    def undo(machine: Machine) -> None:
        machine.said("rm", "-f", "/opt/neuronops/filling")

    return fails(lab, place, "upgrade", words, make, undo, more)


@fault("disk-full")
def disk_full(lab: Lab, place: str) -> Outcome:
    return small_disk(lab, place, r"(?i)no space left", [])


@fault("disk-too-small")
def disk_too_small(lab: Lab, place: str) -> Outcome:
    words = r"has 0\.0 GiB free for /opt/neuronops/releases, and .{1,80} needs? \d+ \(neuron_release_space"
    return small_disk(lab, place, words, variables(neuron_release_space=7))


@fault("dpkg-interrupted")
def dpkg_interrupted(lab: Lab, place: str) -> Outcome:
    """apt was ended between unpacking and configuring; the role ends its work, and the run does not fail."""
    series = SERIES["driver"]

    def disturb(machine: Machine, controller: Path, log: str) -> list[str]:
        script = """
            set -e
            apt-get -qq update && cd /root && apt-get -qq download make >/dev/null
            dpkg --unpack make_*.deb >/dev/null && rm make_*.deb
        """
        machine.said("sh", "-c", script)
        run = lab.run(controller, [machine], series.stack, lab.command(series), log)
        return [] if run.status == 0 else [f"The run failed:\n{run.end}"]

    return lab.trial(place, series, disturb)


@fault("host-rebooted")
def host_rebooted(lab: Lab, place: str) -> Outcome:
    """The power goes away in the middle of an upgrade, and the host is back before the run has given up."""
    series = SERIES["upgrade"]
    boundaries = lab.reference("upgrade").run.on_the_host()
    boundary = boundaries[len(boundaries) // 2]

    def disturb(machine: Machine, controller: Path, log: str) -> list[str]:
        program = ["sh", "-c", f"docker kill {machine.container} && docker start {machine.container}"]
        run = lab.run(controller, [machine], series.stack, lab.command(series), log, boundary=boundary, program=program)
        if run.status < 0:
            return [f"The run did not end by itself:\n{run.end}"]
        # Whatever the run came to, the server is back without it.
        lab.wait_until_served(machine)
        return []

    return lab.trial(place, series, disturb)


@fault("clock-skew")
def clock_skew(lab: Lab, place: str) -> Outcome:
    """The host's clock is two years behind, so that no certificate is valid yet."""

    def make(machine: Machine, _: Path) -> None:
        source = (HERE / "on_host" / "clock.c").read_text()
        compiler = f"gcc -shared -fPIC -O -DBEHIND={2 * 365 * 86400} -x c - -o {CLOCK} -ldl"
        machine.said("sh", "-c", f"{compiler} && echo {CLOCK} > /etc/ld.so.preload", stdin=source)
        if machine.said("date", "+%Y") >= datetime.datetime.now(datetime.timezone.utc).strftime("%Y"):
            raise SandboxError(f"The clock of {machine.container} is not behind.")

    def undo(machine: Machine) -> None:
        machine.said("rm", "-f", "/etc/ld.so.preload", CLOCK)

    words = r"(?i)certificate.{0,80}(not valid yet|not yet valid|NotValidYet)"
    return fails(lab, place, "upgrade", words, make, undo, environment_of_uv(FRESH))


@contextlib.contextmanager
def fleet(lab: Lab, number: int) -> Iterator[list[Machine]]:
    """Hosts that serve the first light stack."""
    with contextlib.ExitStack() as stack:
        kept = lab.reference("install").image
        # The first resolves the locks, which name it, as in the undisturbed run.
        names = ["light", *(f"light-{letter}" for letter in "bcdef")][:number]
        machines = [stack.enter_context(lab.machine(kept, name)) for name in names]
        for machine in machines:
            lab.wait_until_served(machine)
        yield machines


def server_process(machine: Machine) -> str:
    return machine.said("systemctl", "show", "vllm.service", "--property=MainPID", "--value")


@fault("broken-release-in-the-canary")
def broken_release_in_the_canary(lab: Lab, place: str) -> Outcome:
    """A release that cannot start goes to a fleet of three: the first host goes back, the others notice nothing."""
    series, log = SERIES["upgrade"], place.replace(":", "-")
    install = lab.reference("install")
    lab.reference("upgrade")
    controller = lab.controller(install.controller)
    problems: list[str] = []
    with fleet(lab, 3) as machines, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(lab.client(machine)) for machine in machines]
        processes = [server_process(machine) for machine in machines]
        command = [*lab.command(series), *variables(neuron_batch=1)]
        run = lab.run(controller, machines, BROKEN, command, log)
        problems += reads(run, "broken on purpose")
        now = [server_process(machine) for machine in machines]
        if [before != after for before, after in zip(processes, now, strict=True)] != [True, False, False]:
            problems.append(f"The servers were the processes {processes} and are {now}: only the first may be another.")
        for machine in machines:
            found = lab.observe(machine)
            for part in ("link", "answers", "unit"):
                if found[part] != install.state[part]:
                    problems.append(f"{machine.name}: {part} is {found[part]}, and was {install.state[part]}.")
        for machine, client in list(zip(machines, clients, strict=True))[1:]:
            if lost(client.requests):
                problems.append(f"{machine.name} lost {lost(client.requests)} requests.")
        # What is broken stays on the hosts for as long as releases are kept; all else is as if it had never been tried.
        after = lab.run(controller, machines, series.stack, lab.command(series), log)
        if after.status:
            problems.append(f"The upgrade after it failed:\n{after.end}")
        wanted = lab.reference("upgrade").state
        for machine in machines:
            found = lab.observe(machine)
            for part in ("link", "answers", "unit", "configuration"):
                if found[part] != wanted[part]:
                    problems.append(f"After the upgrade, {machine.name}: {part} is {found[part]}, not {wanted[part]}.")
    with lab.tally.lock:
        lab.tally.lost += sum(lost(client.requests) for client in clients)
        lab.tally.gap = max([lab.tally.gap, *(longest_gap(client.requests) for client in clients)])
    shutil.rmtree(controller)
    return Outcome(place, problems)


@fault("two-controllers")
def two_controllers(lab: Lab, place: str) -> Outcome:
    """A second run starts while the first is in its middle: it names the first, and the first ends as if alone."""
    series = SERIES["upgrade"]
    boundaries = lab.reference("upgrade").run.on_the_host()
    boundary = boundaries[len(boundaries) // 2]

    def disturb(machine: Machine, controller: Path, log: str) -> list[str]:
        waiting, goes_on = controller.with_suffix(".waiting"), controller.with_suffix(".goes-on")
        program = ["sh", "-c", f"touch {waiting}; while [ ! -e {goes_on} ]; do sleep 0.2; done; echo on"]
        first: list[Run] = []

        def run_first() -> None:
            first.append(
                lab.run(
                    controller, [machine], series.stack, lab.command(series), log, boundary=boundary, program=program
                )
            )

        thread = threading.Thread(target=run_first, daemon=True)
        thread.start()
        while not waiting.exists() and thread.is_alive():
            time.sleep(0.2)
        other = lab.controller(lab.reference("install").controller)
        second = lab.run(other, [machine], series.stack, lab.command(series), f"{log}-second")
        goes_on.touch()
        thread.join()
        problems = reads(second, r"is at work on .*")
        if not re.search(r"\S+@\S+ .*is at work on", " ".join(second.output.split())):
            problems.append("The second run does not name the user and the controller of the first.")
        if not first or first[0].status:
            problems.append(f"The first run failed:\n{first[0].end if first else ''}")
        return problems

    return lab.trial(place, series, disturb)
