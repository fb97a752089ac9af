# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what role neuron_driver has to do: compare what module neuron_info observed with the options of the role."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..module_utils.versions import numbers
from . import stacks

DRIVER, RUNTIME = "aws-neuronx-dkms", "aws-neuronx-runtime-lib"
# Distribution -> the versions that the role supports, and which fact names them.
SYSTEMS = {
    "Debian": ("distribution_major_version", ["11", "12", "13"]),
    "Ubuntu": ("distribution_version", ["20.04", "22.04", "24.04"]),
    "Amazon": ("distribution_major_version", ["2023"]),
}
# Packages of the first generation, for inf1: with these on the host neither driver nor tools of the second one work.
FIRST_GENERATION = ("aws-neuron-dkms", "aws-neuron-tools")

# Images of AWS with a kernel that drivers build on, and the package that brings it.
IMAGES = (
    ("6.17", "the image Ubuntu 24.04 (kernel 6.17, package linux-aws)"),
    ("6.8", "the image Ubuntu 22.04 (kernel 6.8, package linux-aws; on Ubuntu 24.04 package linux-aws-lts-24.04)"),
    ("5.15", "the image Ubuntu 22.04 with package linux-aws-lts-22.04 (kernel 5.15)"),
)


class PlanError(ValueError):
    """The options or the observation cannot be understood."""


def manager(facts: Mapping[str, Any]) -> str:
    """Return the package manager of a system: apt or dnf."""
    return "dnf" if facts.get("distribution") == "Amazon" else "apt"


def plan(host: Mapping[str, Any], facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to do on a host.

    host: what neuron_info returned, with `repository` and `files`.
    facts: distribution, distribution_version, distribution_major_version and architecture.
    options: stack, state, allow_downgrade, hold and files (path -> wanted sha256) as the role has them.

    refusals        why the role must stop before any change (sentences; the other fields hold all the same)
    reasons         why there is something to install, build, hold or write (sentences)
    work            whether anything has to be installed, built, held or written
    repository      whether the package repository has to be set up
    change          whether packages have to change
    packages        what to ask the package manager for in one transaction
    brings          names of the packages that this brings and that were not there
    outdated        packages of the first generation to take off
    hold            packages to hold
    build           kernels that the installed driver has to be built for
    files           files of the role to write
    load            whether the installed driver can be loaded now, in place of another or of none
    reboot          why a reboot is required (sentences)
    problems        what is not as it should be on a host where nothing is left to do (sentences)
    notes           what will go wrong at another time, and what is not known (sentences)
    """
    return _Plan(host, facts, options).as_dict()


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without the build hash that some packages carry."""
    return numbers(plain_version(version))


def plain_version(version: str) -> str:
    """Return a version without the hash of its build, which apt writes behind a dash and rpm behind an underscore."""
    return re.split(r"[-_]", version, maxsplit=1)[0]


def truth(options: Mapping[str, Any], name: str) -> bool:
    """Return an option that is true or false, also where it was given as text."""
    value = options[name]
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if str(value).strip().lower() not in known:
        raise PlanError(f"{name} is {value!r}, and should be true or false.")
    return known[str(value).strip().lower()]


def builds_on(kernel: str, bounds: Mapping[str, str | None]) -> bool:
    """Whether a driver with these bounds can be built for a kernel; a bound that is None does not limit."""
    number = kernel_key(kernel)
    return (not bounds["minimum"] or number >= kernel_key(bounds["minimum"])) and (
        not bounds["below"] or number < kernel_key(bounds["below"])
    )


def mismatch(driver: str, runtime: str) -> str | None:
    """Say that a driver and a runtime do not work with each other, as AWS does since SDK 2.30; None when they do."""
    old, new = numbers("2.27"), numbers("2.29")
    # SDK 2.30 has runtime 2.32, SDK 2.31 driver 2.29 and runtime 2.33.
    if version_key(runtime) >= numbers("2.32") and version_key(driver) < old:
        return f"runtime {runtime} does not work with a driver before 2.27"
    if version_key(driver) >= new and version_key(runtime) < numbers("2.33"):
        return f"driver {driver} does not work with a runtime before 2.33"
    return None


def kernel_key(release: str) -> tuple[int, ...]:
    """Return the numbers that a kernel's release starts with: (6, 8, 0) for 6.8.0-1021-aws."""
    upstream = re.match(r"[0-9]+(\.[0-9]+)*", release)
    if not upstream:
        raise PlanError(f"The kernel's release {release!r} does not start with a number.")
    # What the distribution counts behind it says nothing about the interfaces that a driver is built with.
    return numbers(upstream[0])


@dataclass(frozen=True)
class _Plan:
    host: Mapping[str, Any]
    facts: Mapping[str, Any]
    options: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        work = bool(self.change or self.build or self.outdated or self.hold or self.files or self.repository_differs)
        return {
            "refusals": self.refusals(),
            "reasons": self.reasons(),
            "work": work,
            "repository": self.repository_differs,
            "change": self.change,
            "packages": self.packages,
            "brings": self.brings,
            "outdated": self.outdated,
            "hold": self.hold,
            "build": self.build,
            "files": self.files,
            "load": self.load,
            "reboot": self.reboot_reasons(),
            "problems": self.problems(),
            "notes": self.notes(),
        }

    def reasons(self) -> list[str]:
        found = [] if self.accepted else list(self.host["repository"]["reasons"])
        if self.change:
            found += [
                f"{name} is {self.installed.get(name) or 'not installed'}, and {self.wanted[name]} is wanted"
                for name in self.differing
            ]
        found += [f"{name}, a package of the first generation, is installed" for name in self.outdated]
        found += [f"the driver is not built for kernel {kernel}" for kernel in self.build]
        if not self.change:
            found += [f"{name} is not held" for name in self.hold]
        return found + [f"{path} differs from what the role writes" for path in self.files]

    @property
    def wanted(self) -> Mapping[str, str]:
        packages: Mapping[str, str] = self.options["stack"]["host_packages"]
        return packages

    @property
    def installed(self) -> dict[str, str]:
        """Versions of the packages that are completely installed, without build hashes."""
        return {
            name: plain_version(found["version"])
            for name, found in self.host["packages"].items()
            if found["state"] == "installed"
        }

    @property
    def accepted(self) -> bool:
        """Whether the host is to be left with the packages it has."""
        return self.options["state"] == "present" and all(name in self.installed for name in self.wanted)

    @property
    def differing(self) -> list[str]:
        return [name for name, version in self.wanted.items() if self.installed.get(name) != version]

    @property
    def change(self) -> bool:
        return bool(self.differing) and not self.accepted

    @property
    def newer(self) -> list[str]:
        return [
            name
            for name, version in self.wanted.items()
            if name in self.installed and version_key(self.installed[name]) > version_key(version)
        ]

    @property
    def outdated(self) -> list[str]:
        return [name for name in FIRST_GENERATION if name in self.host["packages"]]

    @property
    def hold(self) -> list[str]:
        if manager(self.facts) != "apt":
            return []
        held = [name for name in self.wanted if self.host["packages"].get(name, {}).get("held")]
        if self.change:
            # A held package that apt changes is held no more.
            return list(self.wanted) if truth(self.options, "hold") else held
        if not truth(self.options, "hold") or self.accepted:
            return []
        return [name for name in self.wanted if name not in held]

    @property
    def kernels(self) -> list[str]:
        """The running kernel and, where it is another, the one that the next boot brings up."""
        kernel = self.host["kernel"]
        return list(dict.fromkeys([kernel["release"], kernel["newest"]]))

    @property
    def unbuilt(self) -> list[str]:
        driver = self.host["driver"]
        built = dict(zip(reversed(self.kernels), [driver["built_for_newest"], driver["built_for_kernel"]]))
        built[self.kernels[0]] = driver["built_for_kernel"]
        return [kernel for kernel in self.kernels if not built[kernel]]

    @property
    def build(self) -> list[str]:
        """Kernels without the module, when packages stay: a transaction that brings a driver builds it by itself."""
        return [] if self.change else self.unbuilt

    @property
    def kernels_without_headers(self) -> list[str]:
        kernel = self.host["kernel"]
        headers = {kernel["newest"]: kernel["newest_headers"], kernel["release"]: kernel["headers"]}
        return [release for release in self.kernels if not headers[release]]

    @property
    def packages(self) -> list[str]:
        building = self.kernels if self.change else self.unbuilt
        missing = [kernel for kernel in self.kernels_without_headers if kernel in building]
        if manager(self.facts) == "dnf":
            headers = [f"kernel-devel-uname-r = {kernel}" for kernel in missing]
            pins = [f"{name}-{version}*" for name, version in self.wanted.items()]
            tools = ["libxcrypt-compat", "gcc-c++"]
        else:
            headers = [f"linux-headers-{kernel}" for kernel in missing]
            pins = [f"{name}={version}*" for name, version in self.wanted.items()]
            # Ubuntu's newer kernels want a newer gcc than that of the system; Debian's headers bring theirs.
            compiler = self.host["kernel"].get("compiler") if self.facts.get("distribution") == "Ubuntu" else None
            headers += [compiler] if compiler and self.kernels[0] in building else []
            tools = []
        return headers + (tools + pins if self.change else [])

    @property
    def brings(self) -> list[str]:
        headers = [spec for spec in self.packages if spec.startswith("linux-headers-")]
        absent = [name for name in self.wanted if name not in self.host["packages"]]
        return headers + (absent if self.change else [])

    @property
    def files(self) -> list[str]:
        return sorted(path for path, digest in self.options["files"].items() if self.host["files"].get(path) != digest)

    @property
    def repository_differs(self) -> bool:
        """A host that is left with its packages is left with its repository, too."""
        return not self.accepted and not self.host["repository"]["current"]

    @property
    def reload_needed(self) -> bool:
        driver = self.host["driver"]
        return bool(
            self.host["hardware"]["present"] and driver["built_for_kernel"] and driver["loaded"] != driver["installed"]
        )

    @property
    def in_use(self) -> bool:
        driver = self.host["driver"]
        return bool(driver["loaded"] and (driver["references"] or driver["in_use_by"]))

    @property
    def load(self) -> bool:
        return self.reload_needed and not self.in_use

    def users(self) -> str:
        """Name the processes that keep the driver from being replaced."""
        users = self.host["driver"]["in_use_by"]
        if not users:
            return f"something that cannot be seen from here ({self.host['driver']['references']} references)"
        return ", ".join(f"{user['command']} (process {user['pid']})" for user in users)

    def refusals(self) -> list[str]:
        refusals = [
            reason
            for reason in (self._unknown_system(), self._wrong_architecture(), self._other_family(), self._not_root())
            if reason
        ]
        return refusals or [*self._wrong_kernels(), *self._wrong_pair(), *self._downgrades()]

    def _unknown_system(self) -> str | None:
        name = self.facts.get("distribution", "an unknown system")
        fact, versions = SYSTEMS.get(name, ("distribution_version", []))
        if str(self.facts.get(fact)) in versions:
            return None
        supported = "; ".join(f"{system} {', '.join(known)}" for system, (_fact, known) in SYSTEMS.items())
        supported = supported.replace("Amazon", "Amazon Linux")
        return f"the host runs {name} {self.facts.get(fact, '')}, and the role supports {supported}"

    def _wrong_architecture(self) -> str | None:
        architecture = self.facts.get("architecture")
        if architecture in ("x86_64", "amd64"):
            return None
        return f"the host is {architecture}, and AWS makes these packages and Neuron instances for x86_64 only"

    @property
    def _families(self) -> set[str]:
        return {device["family"] for device in self.host["hardware"]["devices"]}

    def _other_family(self) -> str | None:
        return stacks.other_family(self.options["stack"], self._families)

    def _not_root(self) -> str | None:
        return None if self.host["root"] else "the role does not run as root; set become to true"

    def _wrong_kernels(self) -> list[str]:
        """A driver that the kernel cannot build leaves dpkg half done, so it is refused before the installation."""
        if not self.change:
            return []
        bounds, version = self.options["stack"]["kernel"], self.wanted.get(DRIVER)
        limits = [
            f"{bounds['minimum']} and later" if bounds["minimum"] else "",
            f"kernels before {bounds['below']}" if bounds["below"] else "",
        ]
        found = []
        for kernel in self.kernels:
            if builds_on(kernel, bounds):
                continue
            state = "runs" if kernel == self.kernels[0] else "has installed, and would boot next,"
            others = [
                name
                for name, entry in stacks.load()["stacks"].items()
                if builds_on(kernel, entry["kernel"]) and not stacks.other_family(entry, self._families)
            ]
            way_out = (
                f"or set neuron_stack to one whose driver builds on it: {', '.join(others)}"
                if others
                else "for no stack that this collection installs has a driver that builds on it"
            )
            image = next((words for number, words in IMAGES if builds_on(number, bounds)), "")
            found.append(
                f"it {state} kernel {kernel}, and driver {version} builds on {' and '.join(filter(None, limits))}. "
                f"Boot such a kernel{image and ', for example that of ' + image}, {way_out}"
            )
        return found

    def _wrong_pair(self) -> list[str]:
        """Driver and runtime that are to be on the host, and do not work together."""
        there = self.installed if self.accepted else self.wanted
        words = mismatch(there[DRIVER], there[RUNTIME]) if DRIVER in there and RUNTIME in there else None
        if words is None:
            return []
        if self.accepted:
            return [
                f"it has driver {there[DRIVER]} beside runtime {there[RUNTIME]}, and {words}. "
                "Set neuron_driver_state to exact, which brings the stack's versions of both"
            ]
        return [
            f"the stack has driver {there[DRIVER]} beside runtime {there[RUNTIME]}, and {words}. Correct host_packages"
        ]

    def _downgrades(self) -> list[str]:
        if not self.change or not self.newer or truth(self.options, "allow_downgrade"):
            return []
        newer = ", ".join(f"{name} {self.installed[name]} (wanted {self.wanted[name]})" for name in self.newer)
        return [
            f"newer packages than the stack's are installed: {newer}. To keep them set neuron_driver_state to present; "
            "to go back to the stack's versions set neuron_driver_allow_downgrade to true"
        ]

    def reboot_reasons(self) -> list[str]:
        driver, kernel, reasons = self.host["driver"], self.host["kernel"], []
        if self.reload_needed and self.in_use:
            reasons.append(
                f"driver {driver['loaded']} is loaded while {driver['installed']} is installed, "
                f"and it is in use by {self.users()}"
            )
        if kernel["newest"] != kernel["release"]:
            reasons.append(f"kernel {kernel['newest']} is installed while {kernel['release']} is running")
        return reasons

    def notes(self) -> list[str]:
        kernel, found = self.host["kernel"], []
        if kernel.get("next_unknown"):
            found.append(
                f"which kernel the next boot brings up is not known: {kernel['next_unknown']}; the driver is there for "
                f"{kernel['release']}"
            )
        if self.accepted and self.differing:
            kept = ", ".join(
                f"{name} {self.installed[name]} (the stack's {self.wanted[name]})" for name in self.differing
            )
            found.append(f"as neuron_driver_state is present, packages stay in other versions than the stack's: {kept}")
        for reason in self.host["driver"].get("not_at_boot", []):
            found.append(
                f"the driver will not be loaded at the next boot, for {reason}; remove it, or load the driver then"
            )
        return found

    def problems(self) -> list[str]:
        driver, kernel, found = self.host["driver"], self.host["kernel"], []
        if self.change:
            found.append(f"the versions of {', '.join(self.differing)} are not those of the stack")
        if not driver["built_for_kernel"]:
            found.append(f"driver {driver['installed']} is not built for the running kernel {kernel['release']}")
        if not self.host["hardware"]["present"]:
            return found
        listed, answer = len(self.host["hardware"]["devices"]), self.host["neuron_ls"]
        if driver["loaded"] is None:
            found.append("no driver is loaded")
        elif driver["loaded"] != driver["installed"] and not self.in_use:
            found.append(f"driver {driver['loaded']} is loaded while {driver['installed']} is installed")
        elif answer["rc"] != 0:
            found.append(f"neuron-ls fails: {answer['error'] or 'it is not installed'}")
        elif len(answer["devices"]) != listed:
            found.append(f"neuron-ls finds {len(answer['devices'])} of the {listed} devices on the PCI bus")
        return found
