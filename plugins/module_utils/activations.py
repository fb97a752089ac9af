# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one reader and writer of what a host remembers of the activations of a server, newest last.

An activation is a unit, an environment file and a release that were put in place together. It is pending from before
the first file is written until the server has answered (proven) or another one was put in its place (failed, stopped).
Each has copies of its files, so that what serves can be brought back whatever was done to the files in /etc since.

Functions that take `root` look at a host in a folder. Commands go through `run`, a function that takes an argument list
and returns (exit status, standard output, standard error).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import time

from ansible_collections.neuronops.vllm.plugins.module_utils import environment, files, forms, process

HISTORY = "/var/lib/neuronops/activations.json"
COPIES = "/var/lib/neuronops/activations"
LOCK = "/var/lib/neuronops/activations.lock"
SCHEMA = 1
MOST = 50  # activations
LONGEST_REASON = 1000  # characters
# The first line that this collection writes into a unit; one without it is somebody else's.
MARK = "# Written by role neuronops.vllm.vllm_server."
# Where the server of an activation has what was compiled for it, by a hash of what decides on it.
ARTIFACTS = "/var/lib/%s/artifacts"
_ARTIFACTS = re.compile(r'NEURON_COMPILED_ARTIFACTS="%s/([0-9a-f]{16})"\Z' % ARTIFACTS.replace("%s", "[^/]+"))
_ARTIFACTS_NAME = re.compile(r"[0-9a-f]{16}\Z")
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
# How a copy of an environment file says that a value is not kept.
_NOT_KEPT = "#not kept: "
_SERVICE = re.compile(r"(?!.*\.service\Z)[A-Za-z][A-Za-z0-9_.-]{0,99}\Z")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
_STATES = ("pending", "proven", "failed", "stopped")
KEYS = (
    "number",
    "service",
    "link",
    "release",
    "configuration",
    "stack",
    "state",
    "at",
    "ended_at",
    "reason",
    "proof",
    "link_before",
    "back_from",
)
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "MainPID",
    "NeedDaemonReload",
    "FragmentPath",
    "DropInPaths",
)
# What of a drop-in would make the server another one than its activation says.
_TAKEN_OVER = ("EnvironmentFile", "ExecStart", "Restart", "Type", "User", "WorkingDirectory")
_LOCK_SECONDS = 60
_MODES = {"unit": 0o644, "environment": 0o600, "needrestart": 0o644}


class ActivationError(Exception):
    """What was asked for cannot be done; the message says why and what to do, and nothing was changed."""


class ApplyError(Exception):
    """It was begun, and a step of it failed; the activation is recorded as pending."""


def paths(service):
    """Return {kind: path} of the files that an activation consists of."""
    return {
        "unit": "/etc/systemd/system/%s.service" % service,
        "environment": "/etc/neuronops/%s.env" % service,
        "needrestart": "/etc/needrestart/conf.d/neuronops-%s.conf" % service,
    }


def below(root, path):
    return os.path.join(root, path.lstrip("/"))


def service_name(value):
    """Return the name of a service without .service; raises forms.FormError."""
    if not isinstance(value, str) or not _SERVICE.match(value):
        raise forms.FormError(
            "service is %s, and should be a name of letters, digits, and _ . - within, without .service"
            % forms.shortened(value)
        )
    return str(value)


def moment(value, what):
    """Return a time as this file writes it."""
    if not isinstance(value, str) or not _TIME.match(value):
        raise forms.FormError(
            "%s is %s, and should be a time such as 2026-01-31T12:00:00Z" % (what, forms.shortened(value))
        )
    return str(value)


def entry_of(value, what="an activation"):
    """Return one activation, made of what was understood; raises forms.FormError."""
    found = forms.fields(value, KEYS, what)

    def optional(name, check):
        return None if found[name] is None else check(found[name], "%s.%s" % (what, name))

    def path(value, what):
        return forms.form("absolute path", value, what)

    def proof(value, what):
        given = forms.fields(value, ("at", "seconds", "pid", "tokens"), what)
        return {
            "at": moment(given["at"], what + ".at"),
            "seconds": forms.number(given["seconds"], what + ".seconds"),
            "pid": forms.number(given["pid"], what + ".pid", 1, 2**31),
            "tokens": forms.number(given["tokens"], what + ".tokens"),
        }

    return {
        "number": forms.number(found["number"], what + ".number", 1, 10**9),
        "service": service_name(found["service"]),
        "link": optional("link", path),
        "release": path(found["release"], what + ".release"),
        "configuration": forms.form("hash", found["configuration"], what + ".configuration"),
        "stack": forms.form("line of text", found["stack"], what + ".stack"),
        "state": forms.one_of(found["state"], _STATES, what + ".state"),
        "at": moment(found["at"], what + ".at"),
        "ended_at": optional("ended_at", moment),
        "reason": optional("reason", lambda value, what: forms.form("line of text", value, what)),
        "proof": optional("proof", proof),
        "link_before": optional("link_before", path),
        "back_from": optional("back_from", lambda value, what: forms.number(value, what, 1, 10**9)),
    }


def understood(root="/"):
    """Return (all activations, oldest first; why the file is not understood, as a sentence, or None).

    Where there is no file there are none, and nothing is wrong with it.
    """
    try:
        with open(below(root, HISTORY), encoding="utf-8") as file:
            found = json.load(file)
        if isinstance(found, dict) and isinstance(found.get("schema"), int) and found["schema"] > SCHEMA:
            return [], "%s was written by a newer version of this collection: use that one" % HISTORY
        found = forms.fields(found, ("schema", "activations"), "the history")
        forms.number(found["schema"], "schema", SCHEMA, SCHEMA)
        entries = [entry_of(entry) for entry in forms.sequence(found["activations"], "activations", 10000)]
    except FileNotFoundError:
        return [], None
    except (OSError, ValueError, RecursionError) as error:
        return [], "%s is not understood: %s" % (HISTORY, _clean(str(error) or type(error).__name__)[:300])
    return sorted(entries, key=lambda entry: entry["number"]), None


def read(root="/"):
    """Return all activations, oldest first; none where the file is not there or not understood."""
    return understood(root)[0]


def of_services(names, root="/"):
    """Return the activations of these services, for whom observes the host."""
    wanted = [name[: -len(".service")] if name.endswith(".service") else name for name in names]
    return [entry for entry in read(root) if entry["service"] in wanted]


def drop_ins(said, root="/"):
    """Return {path: [settings in it that an activation consists of]} for DropInPaths as systemd says it."""
    found = {}
    for path in said.split():
        text = _text(below(root, path)) or ""
        found[path] = [name for name in _TAKEN_OVER if re.search(r"^\s*%s\s*=" % name, text, re.MULTILINE)]
    return found


def taken_over(found, unit):
    """Say which drop-ins make a server another one than its activation says, as sentences."""
    return [
        "%s sets %s of %s, which this collection sets: remove it and run `systemctl daemon-reload`, or use the options "
        "of role vllm_server" % (path, " and ".join(names), unit)
        for path, names in sorted(found.items())
        if names
    ]


def is_ours(text):
    """Say whether the text of a unit was written by this collection."""
    return MARK in text


def is_proven(entry):
    """Say whether a server of this activation has answered, whatever became of it afterwards."""
    return entry["proof"] is not None and entry["state"] in ("proven", "stopped")


def variables(text):
    """Return {name: whole line} of an environment file that this collection wrote: one line for each variable."""
    found = {}
    for line in text.split("\n"):
        name, equals, _value = line.partition("=")
        if equals and re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", name):
            found[name] = line
    return found


def without_secrets(text):
    """Return an environment file without the values of variables whose names look secret."""
    lines = []
    for line in text.split("\n"):
        name = line.partition("=")[0]
        secret = name in variables(line) and SECRET.search(name)
        lines.append(_NOT_KEPT + name if secret else line)
    return "\n".join(lines)


def with_secrets(text, present):
    """Return (an environment file, [names that are nowhere any more]): what was not kept is taken from the present
    file.

    The present key is asked for also where the old server had none: going back opens no door that was closed since.
    """
    known, lines, missing = variables(present), [], []
    for line in text.split("\n"):
        if not line.startswith(_NOT_KEPT):
            lines.append(line)
            continue
        name = line[len(_NOT_KEPT) :]
        if name in known:
            lines.append(known[name])
        else:
            missing.append(name)
    if "VLLM_API_KEY" in known and "VLLM_API_KEY" not in variables("\n".join(lines)):
        lines.insert(len(lines) - 1 if lines and not lines[-1] else len(lines), known["VLLM_API_KEY"])
    return "\n".join(lines), missing


def shown_variables(text, before=""):
    """Return an environment file for --diff: names, and which values changed, and no value."""
    old = variables(before)
    return "".join(
        "%s=(not shown%s)\n" % (name, ", changed" if name in old and old[name] != line else "")
        for name, line in variables(text).items()
    )


def _write_at_once(path, text, mode):
    """Write a file that is there whole or not at all, with the bytes that it had when it was read."""
    files.write_at_once(path, text.encode("utf-8", "surrogateescape"), mode)


def _sync(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _text(path):
    """Return what is in a file, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _clean(sentence):
    """Return a reason as one line that can be written and shown."""
    line = re.sub(r"\s+", " ", sentence).strip()
    return "".join(part if forms.known("line of text", part) is not None else "?" for part in line)[:LONGEST_REASON]


class Activations:
    """The activations of one service, and what changes them. Used as a context: one process at a time."""

    def __init__(self, run, service, root="/", check=False):
        self.run = run
        self.service = service_name(service)
        self.unit = self.service + ".service"
        self.root = root
        self.check = check
        self.entries, self.problem = understood(root)
        self.changed = False
        self.begins = False
        self.did = []
        self.differences = []
        self._lock = None

    def __enter__(self):
        if self.check:
            return self
        path = below(self.root, LOCK)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        self._lock = open(path, "a+", encoding="utf-8")  # closed in __exit__
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() > deadline:
                    self._lock.seek(0)
                    holder = self._lock.read(100).strip()
                    self._lock.close()
                    raise ActivationError(
                        "another run changes the servers of this host (process %s has %s). Wait for it, or end it, "
                        "and run again" % (forms.shortened(holder), LOCK)
                    ) from error
                time.sleep(0.2)
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        # What another process wrote while this one waited.
        self.entries, self.problem = understood(self.root)
        return self

    def _check_history(self):
        """Raise where what is remembered was written by a newer version, or where it is needed and not understood."""
        if self.problem and "newer version" in self.problem:
            raise ActivationError(self.problem)

    def __exit__(self, *_error):
        if self._lock:
            self._lock.close()

    # What the roles ask for.

    def begun(self, link, release, configuration, stack, texts):
        """Put an activation in place and start it, without waiting for the server; returns it.

        texts: {kind: text} of its files; needrestart may be None. Raises ActivationError before anything was changed,
        and ApplyError after the activation was recorded.
        """
        if variables(texts["environment"]).get("NEURONOPS_CONFIGURATION") != "NEURONOPS_CONFIGURATION=" + configuration:
            raise ActivationError("the environment does not name the configuration that it is of")
        if not is_ours(texts["unit"]):
            raise ActivationError("the unit lacks its first line, %s" % MARK)
        self._check_unit()
        self._check_drop_ins()
        self._check_link(link)
        self._check_release(link, release)
        entry = self._cut_off(link, release, configuration, texts)
        if entry:
            self.did.append("activation %d, which was cut off before it was proven, is continued" % entry["number"])
        else:
            entry = self._record(link, release, configuration, stack, texts)
        self._apply(entry, texts)
        return entry

    def adopted(self, link, release, configuration, stack, proof):
        """Record what serves and was never recorded, where its files are those that it was started with.

        Returns the activation, or None where they are not; `did` says why.
        """
        state = self._properties()
        texts = {kind: _text(below(self.root, path)) for kind, path in paths(self.service).items()}
        said = variables(texts["environment"] or "").get("NEURONOPS_CONFIGURATION")
        if (
            not texts["unit"]
            or said != "NEURONOPS_CONFIGURATION=" + configuration
            or state["NeedDaemonReload"] == "yes"
        ):
            self.did.append(
                "what serves now cannot be brought back later: the files in /etc are not those that it was started with"
            )
            return None
        self._check_process(proof["pid"], state)
        target = self._target(link)
        entry = self._record(link, target or release, configuration, stack, texts, before=target)
        self._prove(entry, proof)
        self.did[-1] = "what serves now is recorded as activation %d" % entry["number"]
        return entry

    def proven(self, number, configuration, proof):
        """Record that the server of a pending activation has answered; older ones lose their secrets."""
        entry = self._numbered(number)
        if entry["state"] == "proven":
            return entry
        if entry["state"] != "pending" or entry != self._newest():
            raise ActivationError(
                "activation %d of %s is not pending but %s (%s): another run has changed the server meanwhile"
                % (number, self.unit, entry["state"], entry["reason"] or "it was replaced")
            )
        if entry["configuration"] != configuration:
            raise ActivationError(
                "what answered has the configuration %s, and activation %d has %s"
                % (configuration[:12], number, entry["configuration"][:12])
            )
        self._check_process(proof["pid"], self._properties())
        self._prove(entry, proof)
        # After going back what failed may be tried again, with what was compiled for it.
        if entry["back_from"] is None and not self.check:
            self._prune_artifacts(entry)
        return entry

    def taken_back(self, number, reason):
        """Record that an activation failed, and start the newest one that was proven; returns that, or None.

        Called again after it was cut off, it goes on. Without one that was proven the service is stopped and disabled.
        """
        entry = self._numbered(number)
        newest = self._newest()
        if newest["state"] == "pending" and newest["back_from"] == number:
            self._apply(newest, self._kept(newest))
            return newest
        if entry is not newest or entry["state"] not in ("pending", "failed"):
            raise ActivationError(
                "activation %d of %s is %s and not the newest: there is nothing to take back"
                % (number, self.unit, entry["state"])
            )
        before = self._newest_usable(lambda candidate: candidate is not entry)
        if entry["state"] == "pending":
            self._end(entry, "failed", reason)
        if before is None:
            self._save()
            self._stop()
            self._link_back(entry)
            self.did.append("no activation before it was proven, so that nothing is served now")
            return None
        texts = self._kept(before)
        self.did.append("activation %d is brought back" % before["number"])
        back = self._record(
            before["link"], before["release"], before["configuration"], before["stack"], texts, back_from=number
        )
        self._apply(back, texts)
        return back

    def previous(self, release="", again=False):
        """Start the newest activation that was proven with another release than the active one, or with this one.

        release: the name of its folder. A host that went back already stays: the second of two such runs, or one that
        goes on where the first was cut off, changes nothing there; with `again` its server is started again.
        """
        self._check_unit()
        self._check_drop_ins()
        if self.problem:
            raise ActivationError(
                "%s, so that it is not known what was proven. Activate a release by playbooks/site.yml" % self.problem
            )
        newest, proven = self._newest(), [entry for entry in self._mine() if is_proven(entry)]
        entry = self._active_already(newest, proven, release)
        if entry and not again:
            return entry
        if not entry:
            entry = self._to_go_back_to(newest, proven, release)
        texts = self._kept(entry)
        self._check_link(entry["link"])
        begun = self._cut_off(entry["link"], entry["release"], entry["configuration"], texts)
        if begun:
            self.did.append("activation %d, which was cut off before it was proven, is continued" % begun["number"])
        else:
            begun = self._record(
                entry["link"],
                entry["release"],
                entry["configuration"],
                entry["stack"],
                texts,
                back_from=entry["back_from"] if entry is newest else newest["number"],
            )
        self._apply(begun, texts)
        return begun

    def _active_already(self, newest, proven, release):
        """Return the newest activation where it is proven and what was asked for."""
        if not newest or newest["state"] != "proven":
            return None
        here = os.path.basename(newest["release"])
        left = any(entry["number"] == newest["back_from"] for entry in proven)
        if release != here and (release or not left):
            return None
        self.did.append("%s is active already" % here + ("; name a release to go further back" if left else ""))
        return newest

    def _to_go_back_to(self, newest, proven, release):
        """Return the newest activation that can be brought back; raises ActivationError with what there is."""
        going_back = newest and newest["state"] == "pending" and newest["back_from"] is not None
        if going_back and release in ("", os.path.basename(newest["release"])) and not self._unusable(newest):
            return newest  # it was cut off on its way
        # What was begun and never proven is what one goes back from, whatever it consists of.
        unproven = bool(newest) and newest["state"] in ("pending", "failed")
        active = None if unproven or not newest else newest["release"]
        usable, passed_over = {}, []
        for entry in reversed(proven):
            name = os.path.basename(entry["release"])
            if entry["release"] == active or name in usable:
                continue
            problem = self._unusable(entry)
            if problem is None:
                usable[name] = entry
            elif not release or name == release:
                passed_over.append(problem)
        if not release and usable:
            entry = next(iter(usable.values()))
            self.did += [problem for problem in passed_over if "activation %d " % entry["number"] not in problem][:3]
            return entry
        if release in usable:
            return usable[release]
        there = "There is: %s" % ", ".join(sorted(usable)) if usable else "There is no other that can be gone back to"
        if passed_over:
            raise ActivationError("%s. %s" % (passed_over[0], there))
        if release:
            raise ActivationError("No release %s was proven on this host. %s" % (release, there))
        raise ActivationError("There is nothing to go back to. No other release was ever proven on this host")

    def stopped(self):
        """Have the service stopped and disabled."""
        state = self._properties()
        if state["LoadState"] == "not-found":
            return
        self._check_unit()
        newest = self._newest()
        if newest and newest["state"] in ("pending", "proven"):
            if newest["state"] == "pending":
                self._end(newest, "failed", "it was stopped before it was proven")
            else:
                self._end(newest, "stopped", None)
            self._save()
        self._stop(state)

    def absent(self, link):
        """Remove the service and all that is known of it; models, caches, state and releases stay."""
        self._check_unit()
        state = self._properties()
        if state["LoadState"] != "not-found":
            self._stop(state)
        mine = self._mine()
        removed = False
        for path in paths(self.service).values():
            removed = self._remove(path) or removed
            removed = self._remove(path + ".before") or removed
        for path in drop_ins(state["DropInPaths"], self.root):
            self.did.append("%s stays, as it is not of this collection" % path)
        if removed and not self.check:
            self._systemctl("daemon-reload")
            self._systemctl("reset-failed", self.unit, may_fail=True)
        for path in sorted({link or None, *(entry["link"] for entry in mine)} - {None}):
            target = self._target(path)
            if target and (
                any(target == entry["release"] for entry in mine)
                or os.path.isdir(below(self.root, os.path.join(target, "neuronops")))
            ):
                self._remove(path)
        if mine:
            self.changed = True
            self.entries = [entry for entry in self.entries if entry["service"] != self.service]
            self.did.append("its activations are forgotten")
            self._save()
        folder = below(self.root, "/etc/neuronops")
        if not self.check:
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # where nothing else is in it

    def pending(self):
        """Return the activation that was begun and is neither proven nor failed, or None."""
        newest = self._newest()
        return newest if newest and newest["state"] == "pending" else None

    # How it is done.

    def _mine(self):
        return [entry for entry in self.entries if entry["service"] == self.service]

    def _newest(self):
        mine = self._mine()
        return mine[-1] if mine else None

    def _numbered(self, number):
        for entry in self._mine():
            if entry["number"] == number:
                return entry
        raise ActivationError("there is no activation %d of %s on this host" % (number, self.unit))

    def _newest_usable(self, wanted):
        for entry in reversed(self._mine()):
            if is_proven(entry) and wanted(entry):
                problem = self._unusable(entry)
                if problem is None:
                    return entry
                self.did.append(problem)
        return None

    def _unusable(self, entry):
        """Say why an activation cannot be brought back, or None."""
        release = below(self.root, entry["release"])
        name = "activation %d (%s)" % (entry["number"], entry["release"])
        if not os.path.isdir(release):
            return "%s cannot be brought back: its folder is gone" % name
        if not os.path.isfile(os.path.join(release, "neuronops", "vllm.json")):
            return "%s cannot be brought back: it has no neuronops/vllm.json, so that it is not complete" % name
        try:
            process.ask_python(os.path.join(release, "bin", "python"), "sys.prefix")
        except OSError as error:
            return "%s cannot be brought back: its bin/python does not run (%s)" % (name, _clean(str(error))[:200])
        faults = environment.faults(release, ["vllm"])
        if faults:
            return "%s cannot be brought back: %s" % (name, "; ".join(faults[:3]))
        try:
            self._kept(entry, tell=False)
        except (ActivationError, OSError) as error:
            return "%s cannot be brought back: %s" % (name, error)
        return None

    def _record(self, link, release, configuration, stack, texts, before=None, back_from=None):
        """Write a new pending activation with copies of its files, before anything else is changed."""
        newest = self._newest()
        if newest and newest["state"] == "pending":
            # What was there before it is what was there before this one.
            before = newest["link_before"]
            self._end(newest, "failed", "it was cut off before it was proven, and another one was begun")
        else:
            before = before or self._target(link)
        entry = {
            "number": self._next_number(),
            "service": self.service,
            "link": link or None,
            "release": release,
            "configuration": configuration,
            "stack": stack or "",
            "state": "pending",
            "at": _now(),
            "ended_at": None,
            "reason": None,
            "proof": None,
            "link_before": before,
            "back_from": back_from,
        }
        self.changed = True
        self.entries.append(entry_of(entry))
        if not self.check:
            folder = self._copies(entry)
            os.makedirs(below(self.root, COPIES), mode=0o700, exist_ok=True)
            os.chmod(below(self.root, COPIES), 0o700)
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder, 0o700)
            for kind, text in texts.items():
                if text is not None:
                    _write_at_once(os.path.join(folder, kind), text, 0o600)
            self._save()
        self.did.append("activation %d is recorded as pending" % entry["number"])
        return self.entries[-1]

    def _cut_off(self, link, release, configuration, texts):
        """Return the pending activation that consists of just this, or None."""
        newest = self._newest()
        if (
            not newest
            or newest["state"] != "pending"
            or (newest["link"], newest["release"], newest["configuration"]) != (link or None, release, configuration)
        ):
            return None
        kept = {kind: _text(os.path.join(self._copies(newest), kind)) for kind in paths(self.service)}
        return newest if all(kept[kind] == texts.get(kind) for kind in kept) else None

    def _kept(self, entry, tell=True):
        """Return {kind: text} of the files of an activation, with the secrets of now where its own are not kept."""
        texts = {kind: _text(os.path.join(self._copies(entry), kind)) for kind in paths(self.service)}
        if texts["unit"] is None or texts["environment"] is None:
            raise ActivationError("the copies of the files of activation %d are gone" % entry["number"])
        if _NOT_KEPT not in texts["environment"]:
            return texts
        present = _text(below(self.root, paths(self.service)["environment"]))
        if present is None:
            kept = [
                _text(os.path.join(self._copies(other), "environment")) for other in self._mine() if is_proven(other)
            ]
            present = next((text for text in reversed(kept) if text), "")
        texts["environment"], missing = with_secrets(texts["environment"], present)
        if "VLLM_API_KEY" in missing:
            raise ActivationError(
                "the server of activation %d asked for a key, and %s has none any more. Activate its release by "
                "the playbook that sets vllm_server_api_key" % (entry["number"], paths(self.service)["environment"])
            )
        if tell:
            self.did += ["%s has no value any more, and is left out" % name for name in missing]
        return texts

    def _apply(self, entry, texts):
        """Put the files, the link and the service in place; each step may be repeated."""
        self.begins = self.changed = True
        try:
            for kind, path in paths(self.service).items():
                self._put(kind, path, texts.get(kind))
            self._swap(entry["link"], entry["release"])
            if not self.check:
                self._systemctl("daemon-reload")
                # A service that has used up its starts is not started again without it.
                self._systemctl("reset-failed", self.unit, may_fail=True)
                self._systemctl("enable", self.unit)
                self._systemctl("restart", self.unit)
        except OSError as error:
            raise ApplyError("activation %d could not be put in place: %s" % (entry["number"], error)) from error
        self.did.append("%s is started with %s" % (self.unit, entry["release"]))

    def _put(self, kind, path, text):
        """Write one file where it differs."""
        if text is None:
            return
        real = below(self.root, path)
        before = _text(real)
        mode = _MODES[kind]
        if before == text and not os.path.islink(real) and stat.S_IMODE(os.stat(real).st_mode) == mode:
            return
        self.changed = True
        if before != text:
            shown = (lambda text: shown_variables(text, before or "")) if kind == "environment" else str
            self.differences.append(
                {"before": shown(before or ""), "after": shown(text), "before_header": path, "after_header": path}
            )
        self.did.append("%s is written" % path)
        if not self.check:
            os.makedirs(os.path.dirname(real), mode=0o755, exist_ok=True)
            _write_at_once(real, text, mode)

    def _swap(self, link, release):
        """Have the link lead to the release, by one rename."""
        if not link or self._target(link) == release:
            return
        self.changed = True
        self.did.append("%s leads to %s" % (link, release))
        if self.check:
            return
        real = below(self.root, link)
        self._check_link(link)
        os.makedirs(os.path.dirname(real), mode=0o755, exist_ok=True)
        temporary = real + ".neuronops-new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(release, temporary)
        os.rename(temporary, real)
        _sync(os.path.dirname(real))

    def _link_back(self, entry):
        """Have the link as it was before an activation that never served."""
        if not entry["link"] or self._target(entry["link"]) != entry["release"]:
            return
        if entry["link_before"] is None:
            self._remove(entry["link"])
        else:
            self._swap(entry["link"], entry["link_before"])

    def _target(self, link):
        """Return where a link leads, or None where there is no link."""
        try:
            target = os.readlink(below(self.root, link)) if link else None
        except OSError:
            return None
        return forms.known("absolute path", os.path.join(os.path.dirname(link), target)) if target else None

    def _check_link(self, link):
        real = below(self.root, link) if link else None
        if real and os.path.lexists(real) and not os.path.islink(real):
            raise ActivationError(
                "%s is no link to a release: it was not made by this collection. Move it away, or leave "
                "vllm_server_release empty to serve from it" % link
            )

    def _check_release(self, link, release):
        """Raise where there is nothing to serve from; a check run comes here before there is."""
        if link and os.path.normpath(link) == os.path.normpath(release):
            raise ActivationError("%s cannot be both the release and the link to it" % release)
        if not self.check and not os.path.exists(os.path.join(below(self.root, release), "bin", "python")):
            raise ActivationError("%s is no Python environment: it has no bin/python" % release)

    def _check_unit(self):
        """Raise where the service is somebody else's, or what is remembered of it that of a newer version."""
        self._check_history()
        state = self._properties()
        path = below(self.root, paths(self.service)["unit"])
        text = _text(path) if os.path.lexists(path) and os.path.realpath(path) != "/dev/null" else None
        if state["LoadState"] == "masked" or (os.path.islink(path) and text is None):
            raise ActivationError("%s is masked. Allow it with `systemctl unmask %s`" % (self.unit, self.unit))
        elsewhere = state["FragmentPath"] and state["FragmentPath"] != paths(self.service)["unit"]
        if (text is not None and not is_ours(text)) or (text is None and elsewhere):
            raise ActivationError(
                "%s is not of this collection. Keep it under another name, or set vllm_server_service to another one"
                % (paths(self.service)["unit"] if text is not None else state["FragmentPath"])
            )

    def _check_drop_ins(self):
        """Raise where a server would not be what its activation says."""
        sentences = taken_over(drop_ins(self._properties()["DropInPaths"], self.root), self.unit)
        if sentences:
            raise ActivationError("; ".join(sentences))

    def _check_process(self, pid, state):
        if state["MainPID"] != str(pid):
            raise ActivationError(
                "process %d answered, and the main process of %s is %s by now" % (pid, self.unit, state["MainPID"])
            )

    def _prove(self, entry, proof):
        """Write the proof; what only an unproven activation needed is removed first."""
        self.changed = True
        self.did.append("activation %d is recorded as proven" % entry["number"])
        for other in self._mine():
            if other is entry:
                continue
            if other["ended_at"] is None:
                other["ended_at"] = _now()
            if self.check:
                continue
            copy = os.path.join(self._copies(other), "environment")
            text = _text(copy)
            if text is not None and without_secrets(text) != text:
                _write_at_once(copy, without_secrets(text), 0o600)
        if not self.check:
            for path in paths(self.service).values():
                # What versions before 0.2 kept to go back.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(below(self.root, path + ".before"))
        entry.update(state="proven", ended_at=None, reason=None, proof=dict(proof, at=_now()))
        self._save()

    def _artifacts(self, entry):
        """Return the name of the folder with what was compiled for an activation, or None."""
        text = _text(os.path.join(self._copies(entry), "environment")) or ""
        match = _ARTIFACTS.match(variables(text).get("NEURON_COMPILED_ARTIFACTS", ""))
        return match and match.group(1)

    def _needed_artifacts(self, newest):
        """Return the folders of what was compiled for the newest activation, for the configuration before it, and for
        the last of each release that can be gone back to."""
        needed, releases = {self._artifacts(newest)}, {newest["release"]}
        for entry in reversed([entry for entry in self._mine() if entry is not newest and is_proven(entry)]):
            first = len(needed) == 1
            there = os.path.isdir(below(self.root, entry["release"]))
            if first or (there and entry["release"] not in releases):
                needed.add(self._artifacts(entry))
            releases.add(entry["release"])
        return needed

    def _prune_artifacts(self, newest):
        """Remove what was compiled for configurations that nothing goes back to; what cannot be removed is told of."""
        folder, needed, removed = ARTIFACTS % self.service, self._needed_artifacts(newest), []
        try:
            # The service may write here, and must not lead a removal to another place.
            handle = os.open(below(self.root, folder), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # there is none
            return
        try:
            for name in sorted(os.listdir(handle)):
                if _ARTIFACTS_NAME.match(name) and name not in needed:
                    shutil.rmtree("/proc/self/fd/%d/%s" % (handle, name))
                    removed.append(name)
        except OSError as error:
            self.did.append("what was compiled before could not be removed from %s: %s" % (folder, _clean(str(error))))
        finally:
            os.close(handle)
        if removed:
            self.did.append("what nothing goes back to is removed from %s: %s" % (folder, ", ".join(removed)))

    def _end(self, entry, state, reason):
        self.changed = True
        entry.update(state=state, ended_at=_now(), reason=_clean(reason) if reason else None)
        if reason:
            self.did.append("activation %d is recorded as %s: %s" % (entry["number"], state, entry["reason"]))

    def _next_number(self):
        folders = _listed(below(self.root, COPIES))
        return 1 + max(
            [entry["number"] for entry in self.entries] + [int(name) for name in folders if name.isdigit()] + [0]
        )

    def _copies(self, entry):
        return os.path.join(below(self.root, COPIES), str(entry["number"]))

    def _save(self):
        """Write the history, and remove copies that no activation has."""
        if self.check:
            return
        self._shorten()
        for entry in self.entries:
            entry_of(entry)
        path = below(self.root, HISTORY)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if self.problem:
            self._put_aside()
        text = json.dumps({"schema": SCHEMA, "activations": self.entries}, indent=1) + "\n"
        _write_at_once(path, text, 0o600)
        known = {str(entry["number"]) for entry in self.entries}
        for name in _listed(below(self.root, COPIES)):
            if name not in known:
                shutil.rmtree(os.path.join(below(self.root, COPIES), name), ignore_errors=True)

    def _put_aside(self):
        """Keep a history that is not understood, and the copies that belong to it, under another name."""
        aside = ".damaged-%s" % time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        kept = {str(entry["number"]) for entry in self.entries}
        copies = below(self.root, COPIES)
        for name in _listed(copies):
            if name not in kept:
                os.makedirs(copies + aside, mode=0o700, exist_ok=True)
                os.rename(os.path.join(copies, name), os.path.join(copies + aside, name))
        os.rename(below(self.root, HISTORY), below(self.root, HISTORY) + aside)
        self.did.append("%s; it is kept as %s%s, and a new one is begun" % (self.problem, HISTORY, aside))
        self.problem = None

    def _shorten(self):
        """Drop the oldest activations, and never the newest proven ones of the last two releases of a service."""
        needed = {entry["number"] for entry in self.entries if entry["state"] == "pending"}
        for service in {entry["service"] for entry in self.entries}:
            releases = {}
            for entry in reversed(self.entries):
                if entry["service"] == service and is_proven(entry) and len(releases) < 2:
                    releases.setdefault(entry["release"], entry["number"])
            needed |= set(releases.values())
        surplus = [entry for entry in self.entries[:-1] if entry["number"] not in needed]
        for entry in surplus[: max(0, len(self.entries) - MOST)]:
            self.entries.remove(entry)

    def _remove(self, path):
        real = below(self.root, path)
        if not os.path.lexists(real):
            return False
        self.changed = True
        self.did.append("%s is removed" % path)
        if not self.check:
            os.unlink(real)
        return True

    def _stop(self, state=None):
        state = state or self._properties()
        runs = state["ActiveState"] not in ("inactive", "failed")
        enabled = state["UnitFileState"] in ("enabled", "enabled-runtime")
        if not runs and not enabled:
            return
        self.changed = True
        self.did.append("%s is stopped and disabled" % self.unit)
        if not self.check:
            if enabled:
                self._systemctl("disable", self.unit)
            self._systemctl("stop", self.unit)

    def _systemctl(self, *arguments, may_fail=False):
        status, output, error = self.run(["systemctl"] + list(arguments))
        if status and not may_fail:
            raise OSError("systemctl %s failed: %s" % (" ".join(arguments), _clean(error or output)[:500]))
        return output

    def _properties(self):
        """Return what systemd says of the service."""
        status, output, _error = self.run(["systemctl", "show", "--property=" + ",".join(_PROPERTIES), "--", self.unit])
        found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line) if status == 0 else {}
        defaults = {"LoadState": "not-found", "ActiveState": "inactive", "MainPID": "0"}
        return {name: found.get(name) or defaults.get(name, "") for name in _PROPERTIES}


def _listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []
