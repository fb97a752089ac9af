# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what role vllm_server has to do: compare what a host was found to serve with what it should serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.neuronops.vllm.plugins.module_utils import activations as remembered

# Between the last look and the limit on the controller, which does not believe a host that its server is ever young.
GRACE = 60  # seconds


def plan(observed: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to do on a host.

    observed: service, activations, files and links as neuron_info returned them, and answer as vllm_answer did.
    wanted: host, service, state, configuration, release, link, address, port, files, other_files and restart_unhealthy.

    differs    what is not as wanted, so that the role has something to do or to say (sentences)
    start      whether to begin an activation
    reasons    why (sentences)
    refusals   why nothing may be changed (sentences; the other fields hold all the same)
    failures   what is wrong and stays so, as the role may not restart (sentences)
    prove      the pending activation that needs no more than to be recorded as proven, or None
    adopt      whether what serves has to be recorded, as it is none of the known activations
    write      files to write that need no restart
    notes      what else there is to know (sentences)
    """
    if wanted.get("state", "present") != "present":
        return _way_down(observed["service"], wanted)
    answer, activations = observed["answer"], list(observed["activations"])
    newest = activations[-1] if activations else None
    answers = answer["state"] == "answers"
    unlike = _differences(observed, wanted)
    unhealthy = _unhealthy(answer, wanted)
    down = _down(answer, wanted)
    may = bool(wanted["restart_unhealthy"])

    reasons = down + unlike + (unhealthy if may or unlike or down else [])
    of_newest = _is_of(newest, answer) and newest is not None and newest["state"] in ("pending", "proven")
    known = any(_is_of(entry, answer) and entry["proof"] is not None for entry in activations)
    prove = None
    if newest is not None and newest["state"] == "pending":
        if answers and of_newest and not reasons:
            prove = newest["number"]
        elif reasons or not answers:
            reasons.append(f"activation {newest['number']} was begun on {newest['at']} and never proven")
    adopt = (
        answers
        and not (known if reasons else of_newest)
        and answer["configuration"] is not None
        and bool(observed["service"]["ours"])
    )
    write = [path for path, digest in wanted["other_files"].items() if observed["files"].get(path) != digest]
    refusals, failures = _refusals(observed, wanted), unhealthy if unhealthy and not reasons else []
    # What has to be recorded, beside a start or without one.
    records = [f"activation {prove} has answered, and is not recorded as proven"] if prove is not None else []
    records += ["what serves was never recorded, so that it cannot be brought back"] if adopt and not reasons else []
    differs = [*refusals, *reasons, *failures, *records, *(f"{path} is not as it is written" for path in write)]
    return {
        "differs": differs,
        "start": bool(reasons),
        "reasons": reasons,
        "refusals": refusals,
        "failures": failures,
        "prove": prove,
        "adopt": adopt,
        "write": write,
        "notes": _notes(answer, observed["service"], wanted),
    }


def _way_down(service: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what there is to do where nothing is to be served."""
    name, state, differs = f"{wanted['service']}.service", wanted["state"], []
    if service["load_state"] != "not-found":
        if state == "absent":
            differs.append(f"{name} is there, and is to be removed")
        elif service["active_state"] not in ("inactive", "failed"):
            differs.append(f"{name} is {service['active_state']}, and is to be stopped")
        elif service["enabled"]:
            differs.append(f"{name} starts at boot, and is to be stopped")
    return {
        "differs": differs,
        "start": False,
        "reasons": [],
        "refusals": [],
        "failures": [],
        "prove": None,
        "adopt": False,
        "write": [],
        "notes": [],
    }


def _is_of(entry: Mapping[str, Any] | None, answer: Mapping[str, Any]) -> bool:
    """Say whether what runs was started by an activation."""
    return entry is not None and entry["configuration"] == answer["configuration"]


def _down(answer: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Say that nothing runs, or that it ends as often as it is started."""
    if answer["state"] not in ("absent", "stopped", "ended"):
        return []
    again = f" (systemd has started it again {answer['restarts']} times)" if answer["restarts"] else ""
    return [(answer["problem"] or f"{wanted['service']}.service does not run") + again]


def _unhealthy(answer: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a server that runs."""
    if answer["state"] in ("hung", "errors"):
        return [f"{wanted['service']}.service does not serve: {answer['problem']}"]
    if answer["state"] == "starting":
        return [f"{wanted['service']}.service has not answered since {answer['seconds']} s: {answer['problem']}"]
    return []


def _differences(observed: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Say in what a host differs from what is wanted, whether its server answers or not."""
    service, answer = observed["service"], observed["answer"]
    found = []
    if answer["pid"] is not None and answer["configuration"] != wanted["configuration"]:
        found.append(
            "what runs has another configuration: the release, what is installed in it, an option or a variable changed"
        )
    missing = [path for path in wanted["files"] if observed["files"].get(path) is None]
    differ = [
        path for path, digest in wanted["files"].items() if path not in missing and observed["files"][path] != digest
    ]
    if answer["state"] != "absent":
        found += [f"{path} is not there" for path in missing]
        # After the options were changed a file differs as well, which is no news.
        if not found:
            found += [f"{path} was changed since" for path in differ]
        if service["needs_reload"] and not found:
            found.append(f"the unit of {wanted['service']}.service was changed and never loaded")
        if not service["enabled"]:
            found.append(f"{wanted['service']}.service does not start at boot")
        link = observed["links"].get(wanted["link"]) if wanted["link"] else None
        if link and link["kind"] == "link" and link["target"] != wanted["release"] and not found:
            found.append(f"{wanted['link']} leads to another place than {wanted['release']}")
        if link and link["kind"] == "absent":
            found.append(f"{wanted['link']} is not there")
    return found


def _refusals(observed: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    service, answer, found = observed["service"], observed["answer"], []
    name, host = f"{wanted['service']}.service", wanted["host"]
    listener = answer["listener"]
    if service["load_state"] == "masked":
        found.append(
            f"{name} is masked on {host}: somebody keeps it from running; allow it with `systemctl unmask {name}`"
        )
    elif service["ours"] is False:
        found.append(
            f"{name} on {host} is not of this collection; after `systemctl disable --now {name}` move its unit away "
            f"(`systemctl cat {name}` shows where it is), or set vllm_server_service to another name"
        )
    found += [f"on {host} {sentence}" for sentence in remembered.taken_over(service.get("drop_ins", {}), name)]
    if listener and not listener["ours"]:
        who = listener["command"] + (f" (process {listener['pid']})" if listener["pid"] else "")
        place = f"port {wanted['port']} of {host} at {wanted['address']}"
        found.append(
            f"{place} is held by {who}, which is not of {name}; end that, or set vllm_server_port to another one"
        )
    link = observed["links"].get(wanted["link"]) if wanted["link"] else None
    if link and link["kind"] in ("folder", "file"):
        found.append(
            f"{wanted['link']} on {host} is a {link['kind']} and no link to a release: it was not made here; "
            "move it away, or leave vllm_server_release empty to serve from it"
        )
    return found


def _notes(answer: Mapping[str, Any], service: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = [
        f"{path} is not of this collection, and counts for {wanted['service']}.service"
        for path, names in sorted(service.get("drop_ins", {}).items())
        if not names
    ]
    if answer["state"] == "answers" and answer["restarts"]:
        found.append(
            f"systemd has started {wanted['service']}.service again {answer['restarts']} times since it was activated; "
            f"`journalctl --unit {wanted['service']}` says why it ended"
        )
    return found


def settled(
    found: Mapping[str, Any], wait: int, restarts: int, configuration: str, looks: int, elapsed: float
) -> dict[str, Any] | None:
    """Return what to change in an answer of vllm_answer that is the last one, and None when to look again.

    found: the answer; wait: how old the process may become; restarts: how often it had been started again before;
    configuration: that of the process to wait for, or an empty text; looks, elapsed: how long it was looked at.
    """
    state = found["state"]
    if found["restarts"] > restarts and state != "ended":
        return {"state": "ended", "problem": "it ended, and systemd started it again", "tokens": None}
    if state in ("answers", "ended", "stopped", "absent"):
        return {}
    if configuration and found["configuration"] != configuration:
        return {}
    # Before the process is there it has no age.
    if (found["seconds"] or 0) < wait and elapsed < wait + GRACE:
        return None
    # A server may be slow once.
    return None if state in ("hung", "errors") and looks < 2 else {}
