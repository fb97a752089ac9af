# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases a host keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.modules import release_prune


class Host:
    """Folders of releases, the link to the active one, the history and the processes of a host."""

    def __init__(self, root: Path) -> None:
        self.releases = root / "releases"
        self.releases.mkdir()
        self.link, self.processes = root / "active", root / "proc"
        self.history: list[dict[str, Any]] = []
        self.processes.mkdir()

    def release(self, name: str, completed_at: str | None) -> str:
        own = self.releases / name / "neuronops"
        own.mkdir(parents=True)
        if completed_at:
            (own / "release.json").write_text(json.dumps({"completed_at": completed_at}))
        return str(self.releases / name)

    def activated(self, *entries: tuple[str, str], service: str = "vllm", link: str | None = None) -> None:
        self.history += [
            {
                "service": service,
                "link": link,
                "release": release,
                "state": state,
                "proof": {"pid": 7} if state == "proven" else None,
            }
            for release, state in entries
        ]

    def runs_from(self, release: str) -> None:
        (self.processes / "77").mkdir()
        (self.processes / "77" / "maps").write_text(
            f"7f00-7f01 r-xp 00000000 08:01 5   {release}/lib/python3.10/x.so\n"
        )

    def plan(self, keep: int = 2) -> tuple[list[str], list[str]]:
        options = {
            "directory": str(self.releases),
            "link": str(self.link),
            "keep": keep,
            "caches": [str(self.releases.parent / "cache")],
        }
        gone, kept = release_prune.plan(options, self.history, str(self.processes))
        return sorted(Path(path).name for path in gone), [Path(path).name for path in kept]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = Host(tmp_path)
    for number in range(1, 6):
        found.release(f"r{number}", f"2026-11-0{number}T00:00:00Z")
    return found


def activate(host: Host, name: str) -> str:
    host.link.symlink_to(host.releases / name)
    return str(host.releases / name)


def test_the_newest_are_kept(host: Host) -> None:
    activate(host, "r5")
    assert host.plan() == (["r1", "r2", "r3"], ["r5", "r4"])
    assert host.plan(keep=4) == (["r1"], ["r5", "r4", "r3", "r2"])


def test_the_active_one_and_the_one_before_it_stay_however_old_they_are(host: Host) -> None:
    active = activate(host, "r1")
    host.activated((str(host.releases / "r3"), "proven"), (str(host.releases / "r4"), "failed"), (active, "proven"))
    assert host.plan(keep=1) == (["r2", "r4", "r5"], ["r3", "r1"])


def test_every_service_of_a_host_keeps_its_own_two(host: Host) -> None:
    active = activate(host, "r5")
    other = host.link.with_name("other")
    other.symlink_to(host.releases / "r3")
    host.activated((str(host.releases / "r1"), "proven"), (str(host.releases / "r2"), "proven"), service="b")
    host.activated((active, "proven"), (str(host.releases / "r4"), "pending"), link=str(other))
    assert host.plan(keep=1) == ([], ["r5", "r4", "r3", "r2", "r1"])


def test_what_a_process_runs_from_stays(host: Host) -> None:
    activate(host, "r5")
    host.runs_from(str(host.releases / "r2"))
    assert host.plan(keep=1)[1] == ["r5", "r2"]


def test_what_was_never_completed_goes_and_what_is_not_ours_stays(host: Host) -> None:
    activate(host, "r5")
    host.release("half", None)
    (host.releases / "theirs").mkdir()
    (host.releases / ".build" / "neuronops").mkdir(parents=True)
    assert host.plan(keep=9) == (["half"], ["r5", "r4", "r3", "r2", "r1"])


def test_a_removal_that_was_killed_leaves_nothing_that_looks_whole(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    activate(host, "r5")

    def killed(path: str) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(release_prune.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            release_prune.remove(str(host.releases / "r1"))
    assert not (host.releases / "r1").exists()
    gone, _kept = host.plan()
    assert gone == [".removed-r1", "r2", "r3"]
    for name in gone:
        release_prune.remove(str(host.releases / name))
    assert sorted(path.name for path in host.releases.iterdir()) == ["r4", "r5"]


def compiled(host: Host, *versions: str) -> None:
    for version in versions:
        (host.releases.parent / "cache" / f"neuronxcc-{version}" / "MODULE_0a1b+0c").mkdir(parents=True)


def has_compiler(host: Host, name: str, version: str) -> None:
    (host.releases / name / "lib/python3.10/site-packages" / f"neuronx_cc-{version}.dist-info").mkdir(parents=True)


def test_what_a_compiler_made_that_no_release_has_goes_with_the_last_that_had_it(host: Host) -> None:
    for number in range(1, 6):
        has_compiler(host, f"r{number}", f"2.{number}.0+ab")
    host.link.symlink_to(host.releases / "r1")
    compiled(host, "2.1.0+ab", "2.4.0+ab", "2.5.0", "2.5.1+ab")
    # The active one and the newest are left; a build that is not named may be theirs.
    assert host.plan() == (["neuronxcc-2.4.0+ab", "neuronxcc-2.5.1+ab", "r2", "r3", "r4"], ["r1", "r5"])
    release_prune.remove(str(host.releases.parent / "cache" / "neuronxcc-2.4.0+ab"))
    assert sorted(path.name for path in (host.releases.parent / "cache").iterdir()) == [
        "neuronxcc-2.1.0+ab",
        "neuronxcc-2.5.0",
        "neuronxcc-2.5.1+ab",
    ]


def test_what_was_compiled_stays_while_a_compiler_is_not_known(host: Host, tmp_path: Path) -> None:
    has_compiler(host, "r5", "2.5.0+ab")
    compiled(host, "2.1.0+ab")
    # r4 may be the one whose compiler made it.
    assert "neuronxcc-2.1.0+ab" not in host.plan()[0]
    # So may one that lies elsewhere, and is served from.
    assert "neuronxcc-2.1.0+ab" in host.plan(keep=1)[0]
    (tmp_path / "elsewhere").mkdir()
    host.link.symlink_to(tmp_path / "elsewhere")
    assert "neuronxcc-2.1.0+ab" not in host.plan(keep=1)[0]


def test_what_was_left_of_compiled_models_by_a_removal_that_was_cut_off_goes(host: Host) -> None:
    left = host.releases.parent / "cache" / f"{release_prune.LEAVING}neuronxcc-2.1.0"
    left.mkdir(parents=True)
    assert left.name in host.plan()[0]


def test_a_link_in_the_place_of_the_cache_leads_to_nothing(host: Host, tmp_path: Path) -> None:
    has_compiler(host, "r5", "2.5.0+ab")
    compiled(host, "2.1.0+ab")
    (tmp_path / "cache").rename(tmp_path / "another")
    (tmp_path / "cache").symlink_to(tmp_path / "another")
    assert "neuronxcc-2.1.0+ab" not in host.plan(keep=1)[0]
