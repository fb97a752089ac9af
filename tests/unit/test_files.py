# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import files

MODULE = Path(str(files.__file__))


@pytest.mark.parametrize("content", ["text: ä\n", b"\x00\xff"])
def test_a_file_is_replaced_and_has_its_mode(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    before = os.umask(0o077)
    try:
        files.write_at_once(path, content, 0o644)
    finally:
        os.umask(before)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert path.stat().st_mode & 0o7777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "file").symlink_to("elsewhere")
    files.write_at_once(str(tmp_path / "file"), "ours")
    assert (tmp_path / "elsewhere").read_text() == "theirs"
    assert not (tmp_path / "file").is_symlink()


def test_nobody_else_reads_what_is_not_whole(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "file", 0o644) as file:
        file.write(b"a password")
        file.flush()
        (written,) = tmp_path.iterdir()
        assert written.stat().st_mode & 0o077 == 0
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace", "write"])
def test_what_goes_wrong_in_the_middle_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    def write() -> None:
        if step != "write":
            monkeypatch.setattr(files.os, step, full)
            files.write_at_once(path, "new")
            return
        with files.replacing(path) as file:
            file.write(b"ne")
            full()

    with pytest.raises(OSError, match="No space left"):
        write()
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_crash_in_the_middle_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import importlib.util, os, signal, sys\n"
        "spec = importlib.util.spec_from_file_location('files', sys.argv[1])\n"
        "files = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(files)\n"
        "with files.replacing(sys.argv[2]) as file:\n"
        "    file.write(b'ne')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The module needs nothing but Python: it runs on hosts and on the controller.
    done = subprocess.run([sys.executable, "-I", "-c", code, str(MODULE), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    files.write_at_once(path, "new")
    assert path.read_text() == "new"


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded(name: str, call: Any) -> Any:
        def run(*arguments: Any) -> None:
            order.append(name)
            call(*arguments)

        return run

    monkeypatch.setattr(files.os, "fsync", recorded("fsync", fsync))
    monkeypatch.setattr(files.os, "replace", recorded("replace", replace))
    files.write_at_once(tmp_path / "file", "new")
    assert order == ["fsync", "replace", "fsync"], "the file, then its name, then the folder with the name"


def test_a_hash_is_that_of_the_content(tmp_path: Path) -> None:
    content = b"x" * (files.BLOCK + 1)
    (tmp_path / "file").write_bytes(content)
    assert files.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_what_is_no_file_has_no_hash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nothing")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "link", tmp_path / "missing", "/dev/zero", "a\0b"):
        assert files.sha256(path) is None, path


def test_what_a_killed_writer_left_goes_with_the_next_one_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for left in (f".file.new-{ended.pid}-abc", f".file.new-{os.getpid()}-abc", ".file.new-mine", ".other.new-1-x"):
        (tmp_path / left).write_text("half")
    files.write_at_once(tmp_path / "file", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".file.new-{os.getpid()}-abc",
        ".file.new-mine",
        ".other.new-1-x",
        "file",
    ]
