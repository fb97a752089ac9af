# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of activations, on a host laid out in a folder: what was cut off goes on, and what served comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import activations, forms
from ansible_collections.neuronops.vllm.plugins.module_utils.activations import ActivationError, Activations, ApplyError
from ansible_collections.neuronops.vllm.plugins.modules import vllm_activation

from tests.answers import ACTIVATION

LINK = "/opt/active"
ONE, TWO = "/opt/releases/one", "/opt/releases/two"
A, B, C = "a" * 64, "b" * 64, "c" * 64
UNIT, FILE = "etc/systemd/system/vllm.service", "etc/neuronops/vllm.env"
PROOF = {"pid": 77, "seconds": 3, "tokens": 1}


class KilledError(BaseException):
    """Stands in for SIGKILL: nothing of the code under test catches it."""


class Systemd:
    """Stands in for systemctl: it reads the unit that is in the folder, and remembers what it was told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.active = self.enabled = False
        self.calls: list[str] = []
        self.fails = ""
        self.shown: dict[str, str] = {}

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        verb = command[1]
        self.calls.append(verb)
        if verb == self.fails:
            return 1, "", "Job for vllm.service failed."
        if verb == "show":
            there = (self.root / UNIT).exists()
            known = {
                "LoadState": "loaded" if there else "not-found",
                "ActiveState": "active" if self.active else "inactive",
                "UnitFileState": "enabled" if self.enabled else "disabled",
                "MainPID": "77" if self.active else "0",
                "NeedDaemonReload": "no",
                "FragmentPath": f"/{UNIT}" if there else "",
                **self.shown,
            }
            return 0, "".join(f"{name}={value}\n" for name, value in known.items()), ""
        if verb in ("restart", "stop"):
            self.active = verb == "restart"
        if verb in ("enable", "disable"):
            self.enabled = verb == "enable"
        return 0, "", ""


class Host:
    """A host with two releases, and what is done to its service."""

    def __init__(self, root: Path) -> None:
        self.root, self.systemd = root, Systemd(root)
        for release in (ONE, TWO):
            self.release(release)

    def release(self, path: str) -> None:
        folder = self.root / path.lstrip("/")
        (folder / "neuronops").mkdir(parents=True)
        (folder / "neuronops" / "vllm.json").write_text("{}")
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(sys.executable)

    def do(self, what: str, *arguments: Any, check: bool = False) -> Any:
        with Activations(self.systemd, "vllm", str(self.root), check) as service:
            self.last = service
            return getattr(service, what)(*arguments)

    def begin(self, release: str = ONE, configuration: str = A, key: str = "first-key", **options: Any) -> Any:
        return self.do("begun", LINK, release, configuration, "stack", texts(configuration, key), **options)

    def prove(self, entry: dict[str, Any]) -> Any:
        return self.do("proven", entry["number"], entry["configuration"], PROOF)

    def serve(self, *arguments: Any) -> Any:
        return self.prove(self.begin(*arguments))

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    @property
    def states(self) -> list[str]:
        return [entry["state"] for entry in activations.read(str(self.root))]

    @property
    def target(self) -> str:
        return os.readlink(self.root / LINK.lstrip("/"))

    def everything(self) -> str:
        """Return the content of all files but those of the releases."""
        files = [path for part in ("etc", "var") for path in (self.root / part).rglob("*") if path.is_file()]
        return "\n".join(path.read_text() for path in files)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def texts(configuration: str, key: str) -> dict[str, str | None]:
    return {
        "unit": f"{activations.MARK}\n[Service]\n# {configuration}\n",
        "environment": f'# ours\nNEURONOPS_CONFIGURATION={configuration}\nHOME="/x"\n'
        f'VLLM_API_KEY="{key}"\nHF_TOKEN="{key}-hub"\n',
        "needrestart": None,
    }


def test_an_activation_is_pending_until_it_is_proven(host: Host) -> None:
    entry = host.begin()
    assert host.states == ["pending"] and entry["number"] == 1 and entry["link_before"] is None
    assert host.target == ONE and host.read(UNIT) == texts(A, "first-key")["unit"]
    assert host.systemd.calls[-4:] == ["daemon-reload", "reset-failed", "enable", "restart"]
    host.prove(entry)
    (proven,) = activations.read(str(host.root))
    assert proven["state"] == "proven" and proven["proof"]["pid"] == 77 and proven["ended_at"] is None
    # Proven again, nothing changes.
    host.prove(entry)
    assert not host.last.changed


def test_files_are_for_those_who_need_them(host: Host) -> None:
    host.serve()
    modes = {
        path: oct((host.root / path).stat().st_mode)[-3:]
        for path in (UNIT, FILE, "var/lib/neuronops/activations.json", "var/lib/neuronops/activations")
    }
    assert list(modes.values()) == ["644", "600", "600", "700"]
    assert {path.stat().st_mode & 0o77 for path in (host.root / "var/lib/neuronops/activations/1").iterdir()} == {0}


def test_it_is_recorded_before_anything_is_changed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_arguments: Any) -> None:
        raise KilledError

    monkeypatch.setattr(Activations, "_apply", killed)
    with pytest.raises(KilledError):
        host.begin()
    assert host.states == ["pending"] and not (host.root / "etc").exists()


STEPS = ("_write_at_once", "_save", "_put", "_swap", "_systemctl")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", range(6))
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_killed_at_any_place_reaches_the_same_end(
    host: Host, monkeypatch: pytest.MonkeyPatch, step: str, nth: int, when: str
) -> None:
    host.serve(ONE, A)
    kill_at(monkeypatch, step, nth, when)
    with contextlib.suppress(KilledError):
        host.begin(TWO, B)
    monkeypatch.undo()
    entry = host.serve(TWO, B)
    assert entry["state"] == "proven" and host.target == TWO and B in host.read(UNIT)
    assert host.states[0] == "proven" and host.states.count("pending") == 0
    # And what served before is still there to go back to.
    failed = host.begin(ONE, C)
    host.do("taken_back", failed["number"], "it ended")
    assert host.target == TWO and B in host.read(UNIT) and "first-key" in host.read(FILE)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", range(6))
def test_going_back_that_was_killed_goes_on(host: Host, monkeypatch: pytest.MonkeyPatch, step: str, nth: int) -> None:
    host.serve(ONE, A)
    failed = host.begin(TWO, B)
    kill_at(monkeypatch, step, nth, "before")
    with contextlib.suppress(KilledError):
        host.do("taken_back", failed["number"], "it ended")
    monkeypatch.undo()
    back = host.do("taken_back", failed["number"], "it ended")
    host.prove(back)
    assert host.target == ONE and A in host.read(UNIT) and host.systemd.active
    assert host.states == ["proven", "failed", "proven"]


def kill_at(monkeypatch: pytest.MonkeyPatch, step: str, nth: int, when: str) -> None:
    owner: Any = Activations if hasattr(Activations, step) else activations
    whole, calls = getattr(owner, step), [0]

    def counted(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth + 1 and when == "before":
            raise KilledError
        result = whole(*arguments, **options)
        if calls[0] == nth + 1:
            raise KilledError
        return result

    monkeypatch.setattr(owner, step, counted)


def test_the_same_that_was_cut_off_is_continued_and_another_replaces_it(host: Host) -> None:
    first = host.begin(ONE, A)
    assert host.begin(ONE, A)["number"] == first["number"]
    assert host.begin(ONE, A, "other-key")["number"] != first["number"]
    assert host.states == ["failed", "pending"]
    assert "cut off" in activations.read(str(host.root))[0]["reason"]


def test_what_was_never_proven_leaves_nothing_running(host: Host) -> None:
    failed = host.begin(ONE, A)
    assert host.do("taken_back", failed["number"], "it ended") is None
    assert not host.systemd.active and not host.systemd.enabled
    assert not (host.root / LINK.lstrip("/")).is_symlink()
    # Called again it does the same.
    assert host.do("taken_back", failed["number"], "it ended") is None and host.states == ["failed"]


def test_a_link_of_before_is_left_as_it_was(host: Host) -> None:
    (host.root / LINK.lstrip("/")).symlink_to("/opt/elsewhere")
    host.begin(ONE, A)
    failed = host.begin(TWO, B)  # the first was cut off
    host.do("taken_back", failed["number"], "it ended")
    assert host.target == "/opt/elsewhere"


def test_what_comes_back_is_what_was_proven_whatever_is_in_etc(host: Host) -> None:
    host.serve(ONE, A)
    (host.root / UNIT).write_text(f"{activations.MARK}\nExecStart=/nonexistent\n")
    (host.root / FILE).unlink()
    failed = host.begin(TWO, B)
    back = host.do("taken_back", failed["number"], "it ended")
    assert host.read(UNIT) == texts(A, "first-key")["unit"] and host.read(FILE) == texts(A, "first-key")["environment"]
    assert back["back_from"] == failed["number"] and back["configuration"] == A and host.target == ONE


def test_a_release_that_is_gone_is_none_to_go_back_to(host: Host) -> None:
    host.serve(ONE, A)
    host.serve(TWO, B)
    shutil.rmtree(host.root / TWO.lstrip("/"))
    failed = host.begin(ONE, C)
    back = host.do("taken_back", failed["number"], "it ended")
    assert back["configuration"] == A
    assert any("its folder is gone" in sentence for sentence in host.last.did)


def test_secrets_of_older_activations_are_nowhere_once_a_newer_one_is_proven(host: Host) -> None:
    host.serve(ONE, A, "first-key")
    second = host.begin(TWO, B, "second-key")
    assert "first-key" in host.everything()  # for an immediate way back
    host.prove(second)
    assert "first-key" not in host.everything() and "second-key" in host.everything()
    # Going back later takes the present ones.
    back = host.do("previous")
    assert back["release"] == ONE and back["configuration"] == A
    assert activations.variables(host.read(FILE)) == activations.variables(texts(A, "second-key")["environment"] or "")


def test_a_failed_activation_keeps_no_secret_either(host: Host) -> None:
    host.serve(ONE, A, "first-key")
    failed = host.begin(TWO, B, "second-key")
    host.prove(host.do("taken_back", failed["number"], "it ended"))
    assert "second-key" not in host.everything() and "first-key" in host.read(FILE)


def test_a_server_that_asked_for_a_key_never_comes_back_without_one(host: Host) -> None:
    host.serve(ONE, A, "first-key")
    second = dict(texts(B, "x"), environment=f"NEURONOPS_CONFIGURATION={B}\n")
    host.prove(host.do("begun", LINK, TWO, B, "", second))
    with pytest.raises(ActivationError, match="asked for a key"):
        host.do("previous")
    assert host.target == TWO and host.states == ["proven", "proven"]


def test_a_key_that_was_set_since_is_asked_for_after_going_back() -> None:
    old, present = 'NEURONOPS_CONFIGURATION=a\nHOME="/x"\n', 'VLLM_API_KEY="k"\nHF_TOKEN="t"\n'
    text, missing = activations.with_secrets(old, present)
    assert text == old + 'VLLM_API_KEY="k"\n' and missing == []


def test_previous_says_what_there_is(host: Host) -> None:
    with pytest.raises(ActivationError, match=r"nothing to go back to\. No other release was ever proven"):
        host.do("previous")
    host.serve(ONE, A)
    host.serve(TWO, B)
    with pytest.raises(ActivationError, match=r"No release three was proven on this host\. There is: one"):
        host.do("previous", "three")
    (host.root / ONE.lstrip("/") / "neuronops" / "vllm.json").unlink()
    with pytest.raises(ActivationError, match=r"has no neuronops/vllm.json"):
        host.do("previous", "one")
    (host.root / ONE.lstrip("/") / "neuronops" / "vllm.json").write_text("{}")
    (host.root / ONE.lstrip("/") / "bin" / "python").unlink()
    with pytest.raises(ActivationError, match="does not run"):
        host.do("previous", "one")
    assert host.states == ["proven", "proven"] and host.target == TWO


def test_a_release_that_was_damaged_since_is_not_gone_back_to(host: Host) -> None:
    host.serve(ONE, A)
    host.serve(TWO, B)
    release = host.root / ONE.lstrip("/")
    package = next((release / "lib").glob("python3*/site-packages"), release / "lib" / "python3.9" / "site-packages")
    (package / "thing-1.0.dist-info").mkdir(parents=True)
    (package / "thing-1.0.dist-info" / "METADATA").write_text("Name: thing\n")
    (package / "thing-1.0.dist-info" / "RECORD").write_text("thing.py,,7\n")
    (release / "neuronops" / "vllm.json").write_text('{"role": "vllm", "packages": {"thing": "1.0"}}')
    with pytest.raises(ActivationError, match=r"cannot be brought back: thing is damaged: thing.py is missing"):
        host.do("previous")
    assert host.states == ["proven", "proven"] and host.target == TWO


def test_who_went_back_already_stays_there(host: Host) -> None:
    host.serve(ONE, A)
    host.serve(TWO, B)
    assert host.do("previous", "two")["release"] == TWO and not host.last.changed
    back = host.do("previous")
    # Cut off before it was proven, and run again: it goes on, and then there is nothing left to do.
    assert host.do("previous")["number"] == back["number"]
    host.prove(back)
    for name in ("", "one"):
        assert host.do("previous", name)["number"] == back["number"] and not host.last.changed
    assert "name a release to go further back" in " ".join(host.last.did)
    assert host.target == ONE


def test_going_back_and_forth(host: Host) -> None:
    host.serve(ONE, A)
    host.serve(TWO, B)
    host.prove(host.do("previous"))
    assert host.target == ONE
    host.prove(host.do("previous", "two"))
    assert host.target == TWO and B in host.read(UNIT)


def test_what_was_never_recorded_is_recorded_where_it_is_what_runs(host: Host) -> None:
    host.begin(ONE, A)
    shutil.rmtree(host.root / "var")
    (host.root / f"{UNIT}.before").write_text("x")
    entry = host.do("adopted", LINK, TWO, A, "stack", PROOF)
    # The link says which release it is, and not what is wanted now.
    assert entry["release"] == ONE and host.states == ["proven"]
    assert not (host.root / f"{UNIT}.before").exists()


@pytest.mark.parametrize("edit", ["environment", "unit", "none"])
def test_what_runs_from_other_files_is_not_recorded(host: Host, edit: str) -> None:
    host.begin(ONE, A)
    shutil.rmtree(host.root / "var")
    if edit == "environment":
        (host.root / FILE).write_text(f"NEURONOPS_CONFIGURATION={B}\n")
    elif edit == "unit":
        host.systemd.shown = {"NeedDaemonReload": "yes"}
    else:
        (host.root / FILE).unlink()
    assert host.do("adopted", LINK, ONE, A, "", PROOF) is None
    assert host.states == [] and "cannot be brought back later" in host.last.did[0]


def test_another_process_than_the_one_that_answered_is_no_proof(host: Host) -> None:
    entry = host.begin()
    host.systemd.shown = {"MainPID": "78"}
    with pytest.raises(ActivationError, match="process 77 answered"):
        host.prove(entry)
    host.systemd.shown = {}
    with pytest.raises(ActivationError, match="what answered has the configuration"):
        host.do("proven", entry["number"], B, PROOF)
    assert host.states == ["pending"]


def test_two_runs_do_not_prove_each_others_servers(host: Host) -> None:
    mine = host.begin(ONE, A)
    theirs = host.begin(TWO, B)
    with pytest.raises(ActivationError, match="another run has changed the server meanwhile"):
        host.prove(mine)
    with pytest.raises(ActivationError, match="nothing to take back"):
        host.do("taken_back", mine["number"], "it ended")
    assert host.target == TWO and host.prove(theirs)["state"] == "proven"


def test_one_run_waits_for_the_other_and_says_for_whom(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "_LOCK_SECONDS", 0.3)
    waits = pytest.raises(ActivationError, match=f"process '{os.getpid()}' has")
    with Activations(host.systemd, "vllm", str(host.root)), waits:
        host.begin()
    assert host.states == []


@pytest.mark.parametrize("what", ["begun", "stopped", "absent", "previous"])
@pytest.mark.parametrize("kind", ["foreign", "masked", "elsewhere"])
def test_a_service_of_somebody_else_is_left_alone(host: Host, what: str, kind: str) -> None:
    unit = host.root / UNIT
    unit.parent.mkdir(parents=True)
    if kind == "foreign":
        unit.write_text("[Service]\nExecStart=/bin/true\n")
    elif kind == "masked":
        unit.symlink_to("/dev/null")
        host.systemd.shown = {"LoadState": "masked"}
    else:
        host.systemd.shown = {"LoadState": "loaded", "FragmentPath": "/lib/systemd/system/vllm.service"}
    with pytest.raises(ActivationError, match="unmask" if kind == "masked" else "not of this"):
        if what == "begun":
            host.begin()
        else:
            host.do(what, *([LINK] if what == "absent" else []))
    assert not host.last.changed and set(host.systemd.calls) == {"show"}
    assert not (host.root / "var/lib/neuronops/activations.json").exists()


def test_a_folder_in_place_of_the_link_is_left_alone(host: Host) -> None:
    (host.root / LINK.lstrip("/")).mkdir()
    with pytest.raises(ActivationError, match="is no link to a release"):
        host.begin()
    assert host.states == [] and not (host.root / UNIT).exists()


def test_a_step_that_fails_is_told_and_leaves_it_pending(host: Host) -> None:
    host.systemd.fails = "restart"
    with pytest.raises(ApplyError, match="Job for vllm"):
        host.begin()
    assert host.states == ["pending"]


def test_stopped_and_absent(host: Host) -> None:
    host.serve(ONE, A)
    host.do("stopped")
    assert host.states == ["stopped"] and not host.systemd.active and not host.systemd.enabled
    host.do("stopped")
    assert not host.last.changed
    (host.root / f"{FILE}.before").write_text("VLLM_API_KEY=old\n")
    host.do("absent", "")
    assert host.states == [] and not (host.root / "etc/neuronops").exists()
    assert not (host.root / LINK.lstrip("/")).is_symlink() and (host.root / ONE.lstrip("/")).is_dir()
    host.do("absent", LINK)
    assert not host.last.changed


def test_absent_leaves_what_is_not_its_own(host: Host) -> None:
    host.serve(ONE, A)
    (host.root / "etc/neuronops/other.env").write_text("")
    link = host.root / LINK.lstrip("/")
    link.unlink()
    link.symlink_to("/home/somebody")
    host.do("absent", LINK)
    assert link.is_symlink() and (host.root / "etc/neuronops/other.env").exists()


def test_check_mode_changes_nothing_and_says_what_would(host: Host) -> None:
    entry = host.begin(ONE, A, check=True)
    assert entry["number"] == 1 and host.last.changed and not (host.root / "var").exists()
    assert set(host.systemd.calls) == {"show"}
    shown = json.dumps(host.last.differences)
    assert "VLLM_API_KEY=(not shown)" in shown and "first-key" not in shown and activations.MARK in shown
    host.serve(ONE, A)
    before = host.everything()
    host.do("stopped", check=True)
    host.do("absent", LINK, check=True)
    host.begin(TWO, B, check=True)
    assert host.everything() == before and host.systemd.active


def test_the_history_does_not_grow_for_ever_and_keeps_the_ways_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "MOST", 6)
    host.serve(ONE, A)
    host.serve(TWO, B)
    for number in range(10):
        failed = host.begin(ONE, f"{number:064x}")
        host.prove(host.do("taken_back", failed["number"], "it ended"))
    entries = activations.read(str(host.root))
    assert len(entries) == 6 and entries[0]["release"] == ONE and entries[0]["state"] == "proven"
    kept = sorted(int(path.name) for path in (host.root / "var/lib/neuronops/activations").iterdir())
    assert kept == [entry["number"] for entry in entries]
    assert host.do("previous")["configuration"] == A


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"schema": 0, "activations": []}', '{"schema": 1, "activations": [{}]}', "[" * 100000]
)
def test_a_history_that_is_not_understood_counts_as_none_and_is_kept(host: Host, content: str) -> None:
    file = host.root / "var/lib/neuronops/activations.json"
    (file.parent / "activations" / "7").mkdir(parents=True)
    (file.parent / "activations" / "7" / "unit").write_text("x")
    file.write_text(content)
    assert activations.read(str(host.root)) == []
    with pytest.raises(ActivationError, match=r"activations\.json is not understood: .*so that it is not known"):
        host.do("previous")
    # A number is never given twice.
    assert host.begin()["number"] == 8
    (aside,) = file.parent.glob("activations.json.damaged-*")
    assert aside.read_text() == content and [entry["number"] for entry in activations.read(str(host.root))] == [8]
    (copies,) = file.parent.glob("activations.damaged-*")
    assert (copies / "7" / "unit").read_text() == "x" and (file.parent / "activations" / "8").is_dir()
    assert f"it is kept as /var/lib/neuronops/{aside.name}" in " ".join(host.last.did)


def test_a_history_of_a_newer_version_is_left_alone(host: Host) -> None:
    file = host.root / "var/lib/neuronops/activations.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"schema": 2, "activations": []}')
    with pytest.raises(ActivationError, match="written by a newer version"):
        host.do("previous")
    with pytest.raises(ActivationError, match="written by a newer version"):
        host.begin()
    assert file.read_text() == '{"schema": 2, "activations": []}' and not host.systemd.active


def test_what_was_begun_and_never_proven_is_gone_back_from(host: Host) -> None:
    host.serve(ONE, A)
    host.begin(TWO, B)  # and cut off
    back = host.do("previous")
    assert (back["release"], back["configuration"], host.target) == (ONE, A, ONE)
    host.prove(back)
    # The same where only an option was changed.
    host.begin(ONE, B)
    assert host.do("previous")["configuration"] == A


def test_going_back_from_a_failure_that_was_cut_off_goes_no_release_further(host: Host) -> None:
    host.release("/opt/three")
    host.serve(ONE, A)
    host.serve(TWO, B)
    failed = host.begin("/opt/three", f"{3:064x}")
    back = host.do("taken_back", failed["number"], "it ended")
    assert host.do("previous")["number"] == back["number"] and host.target == TWO


def test_a_server_that_hangs_is_started_again_with_the_release_that_is_active_already(host: Host) -> None:
    host.serve(ONE, A)
    host.serve(TWO, B)
    back = host.prove(host.do("previous"))
    again = host.do("previous", "", True)
    assert again["number"] > back["number"] and again["release"] == ONE and host.last.changed
    host.prove(again)
    assert host.do("previous")["number"] == again["number"] and not host.last.changed


def test_what_is_gone_is_not_offered_and_passed_over(host: Host) -> None:
    for number, name in enumerate(("/opt/one", "/opt/three", "/opt/four", "/opt/two")):
        if name not in (ONE, TWO):
            host.release(name)
        host.serve(name, f"{number:064x}")
    shutil.rmtree(host.root / "opt/four")
    with pytest.raises(ActivationError, match=r"No release x was proven on this host\. There is: one, three$"):
        host.do("previous", "x")
    with pytest.raises(
        ActivationError, match=r"/opt/four\) cannot be brought back: its folder is gone\. There is: one, "
    ):
        host.do("previous", "four")
    assert host.do("previous")["release"] == "/opt/three"
    assert "its folder is gone" in " ".join(host.last.did)


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 9}', '{"role": "vll'])
def test_a_release_whose_record_is_damaged_is_not_gone_back_to(host: Host, content: str) -> None:
    host.serve(ONE, A)
    host.serve(TWO, B)
    (host.root / ONE.lstrip("/") / "neuronops" / "vllm.json").write_text(content)
    with pytest.raises(ActivationError, match="counts as none"):
        host.do("previous")
    assert host.states == ["proven", "proven"] and host.target == TWO


ARTIFACTS = "var/lib/vllm/artifacts"
COMPILED = {letter: letter * 16 for letter in "abcdef"}


def serve_compiled(host: Host, release: str, letter: str, proven: bool = True) -> Any:
    """Begin an activation whose server keeps what it compiled, as NxD Inference does."""
    files = texts(letter * 64, "key")
    files["environment"] = f'{files["environment"]}NEURON_COMPILED_ARTIFACTS="/{ARTIFACTS}/{COMPILED[letter]}"\n'
    entry = host.do("begun", LINK, release, letter * 64, "stack", files)
    (host.root / ARTIFACTS / COMPILED[letter]).mkdir(parents=True, exist_ok=True)
    (host.root / ARTIFACTS / COMPILED[letter] / "model.pt").write_text("x")
    return host.prove(entry) if proven else entry


def compiled(host: Host) -> str:
    """Return of which activations there is what was compiled."""
    return "".join(sorted(path.name[0] for path in (host.root / ARTIFACTS).iterdir() if (path / "model.pt").exists()))


def test_what_was_compiled_is_kept_for_the_releases_and_the_configuration_to_go_back_to(host: Host) -> None:
    serve_compiled(host, ONE, "a")
    serve_compiled(host, TWO, "b")
    serve_compiled(host, TWO, "c")
    assert compiled(host) == "abc"  # the last of ONE, the configuration before, what serves
    serve_compiled(host, TWO, "d", proven=False)
    assert compiled(host) == "abcd"  # nothing is known of it yet
    host.prove(host.last.pending())
    assert compiled(host) == "acd"
    assert "what nothing goes back to is removed from /var/lib/vllm/artifacts: bbbb" in " ".join(host.last.did)
    shutil.rmtree(host.root / ONE.lstrip("/"))
    serve_compiled(host, TWO, "e")
    assert compiled(host) == "de"


def test_going_back_finds_what_was_compiled_and_leaves_what_it_goes_back_from(host: Host) -> None:
    serve_compiled(host, ONE, "a")
    serve_compiled(host, TWO, "b")
    serve_compiled(host, TWO, "c")
    host.prove(host.do("previous"))
    assert f'NEURON_COMPILED_ARTIFACTS="/{ARTIFACTS}/{COMPILED["a"]}"' in host.read(FILE) and compiled(host) == "abc"
    # What failed may be tried again.
    failed = serve_compiled(host, TWO, "d", proven=False)
    host.prove(host.do("taken_back", failed["number"], "it took too long"))
    assert COMPILED["a"] in host.read(FILE) and compiled(host) == "abcd"


def test_a_removal_is_led_nowhere_and_takes_nothing_else(host: Host, tmp_path: Path) -> None:
    serve_compiled(host, ONE, "a")
    (host.root / ARTIFACTS / "notes").mkdir()
    elsewhere = tmp_path / "elsewhere"
    (host.root / ARTIFACTS).rename(elsewhere)
    (elsewhere / COMPILED["f"]).mkdir()
    (host.root / ARTIFACTS).symlink_to(elsewhere)
    serve_compiled(host, TWO, "b")
    assert (elsewhere / COMPILED["f"]).is_dir()
    (host.root / ARTIFACTS).unlink()
    elsewhere.rename(host.root / ARTIFACTS)
    host.do("stopped")
    serve_compiled(host, TWO, "b")
    assert not (host.root / ARTIFACTS / COMPILED["f"]).exists() and (host.root / ARTIFACTS / "notes").is_dir()


@pytest.mark.parametrize(
    ("release", "words"), [(LINK, "both the release and the link"), ("/opt/none", "no bin/python")]
)
def test_what_cannot_be_served_from_is_refused(host: Host, release: str, words: str) -> None:
    host.serve(ONE, A)
    with pytest.raises(ActivationError, match=words):
        host.begin(release, B)
    assert host.states == ["proven"] and host.target == ONE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", "1"),
        ("service", "../x"),
        ("service", "vllm.service"),
        ("release", "opt"),
        ("configuration", "x"),
        ("state", "fine"),
        ("at", "2026"),
        ("proof", {"pid": 1}),
        ("link_before", "/a/../b"),
        ("back_from", 0),
    ],
)
def test_an_activation_has_its_form(name: str, value: Any) -> None:
    assert activations.entry_of(ACTIVATION) == ACTIVATION
    with pytest.raises(forms.FormError):
        activations.entry_of({**ACTIVATION, name: value})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"state": "begun"}, "missing"),
        ({"state": "stopped", "service": "a/b"}, "service is 'a/b'"),
        ({"state": "previous", "release": "../x"}, "release is '../x'"),
        ({"state": "absent", "link": "/a/../b"}, "link is"),
        ({"state": "taken_back", "number": 1, "reason": "x"}, "there is no activation 1"),
    ],
)
def test_the_module_refuses_with_a_sentence(
    run_module: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    host: Host,
    arguments: dict[str, Any],
    words: str,
) -> None:
    redirect(monkeypatch, host)
    answer = run_module(vllm_activation, **{"service": "vllm", **arguments})
    assert answer["failed"] and words in answer["msg"], answer


def test_the_module_shows_no_secret(
    run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    redirect(monkeypatch, host)
    given = {**texts(A, "first-key"), "link": LINK, "release": ONE, "configuration": A, "service": "vllm"}
    answer = run_module(vllm_activation, state="begun", **given)
    assert answer["changed"] and answer["number"] == 1 and answer["problem"] is None and answer["configuration"] == A
    assert "first-key" not in json.dumps(answer) and answer["diff"][0]["after_header"] == f"/{UNIT}"
    host.systemd.fails = "restart"
    assert "Job for vllm.service failed" in run_module(vllm_activation, state="begun", **given)["problem"]


def redirect(monkeypatch: pytest.MonkeyPatch, host: Host) -> None:
    """Have the module work on the host in the folder."""
    whole = activations.Activations

    def there(_run: Any, service: str, check: bool = False) -> Any:
        return whole(host.systemd, service, str(host.root), check)

    monkeypatch.setattr(vllm_activation.activations, "Activations", there)
