# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let one process after the other work in a place: a lock on a file, which ends with the process that holds it.

The holder writes into the file who it is, so that who waits can name it. On hosts and on the controller.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time

from ansible_collections.neuronops.vllm.plugins.module_utils import forms

PAUSE = 0.2  # seconds between two looks
LARGEST = 4096  # bytes of what a holder says of itself
UNKNOWN = "a process that has not said yet who it is"


class BusyError(Exception):
    """Another process has had its turn for longer than was to be waited; `holder` says which one."""

    def __init__(self, path, holder, waited):
        super().__init__("%s is held by %s, and was waited for during %d seconds" % (path, holder, waited))
        self.holder, self.waited = holder, waited


def open_file(path, mode=0o600):
    """Return the file of the turns, open; a link in its place is refused. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, mode), "r+", encoding="utf-8", errors="replace")


def attempt(file, by=""):
    """Take the turn if nobody has it, and say whether that is so; `by` is the person who is behind this process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    said = {
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "from": os.environ.get("SSH_CONNECTION", "").partition(" ")[0],
        "by": by,
    }
    # It is for the eyes of others and decides on nothing: a full disk must not keep anybody from working.
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), json.dumps(said).encode(), 0)
    return True


def holder(file):
    """Say who has the turn, in words that end within a sentence."""
    try:
        said = json.loads(os.pread(file.fileno(), LARGEST, 0).decode())
        text = "process %d, since %s" % (
            forms.number(said["pid"], "pid"),
            forms.form("line of text", said["since"])[:40],
        )
        where, who = (forms.form("line of text", said.get(name, ""))[:200] for name in ("from", "by"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return UNKNOWN
    started = (" from %s" % where if where else "") + (" by %s" % who if who else "")
    return text + (", started" + started if started else "")


def take(path, limit, by="", mode=0o600, waiting=None):
    """Wait for the turn and return (the file, which holds it until it is closed, who had it before or "").

    waiting(seconds, holder): called about once a second. Raises BusyError after `limit` seconds, and OSError.
    """
    start, other, said = time.monotonic(), "", 0.0
    while True:
        file = open_file(path, mode)
        try:
            while not attempt(file, by):
                other = holder(file)
                waited = time.monotonic() - start
                if waited >= limit:
                    raise BusyError(path, other, waited)
                if waiting and waited - said >= 1:
                    said = waited
                    waiting(waited, other)
                time.sleep(PAUSE)
            if _is_still(file, path):
                return file, other
        except BaseException:
            file.close()
            raise
        # Who had it has removed the file, see `leave`: this turn is at a file that nobody else finds any more.
        file.close()


def leave(file, path):
    """Give up the turn and remove its file, which is of no use while nobody works here."""
    try:
        # While it is still held: nobody can have its turn at a file that is about to be removed.
        with contextlib.suppress(OSError):
            if _is_still(file, path):
                os.unlink(path)
    finally:
        file.close()


def remove_unused(path):
    """Remove a file of turns that nobody holds, as a killed process leaves it."""
    with contextlib.suppress(OSError):
        file = open_file(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
        else:
            leave(file, path)


def _is_still(file, path):
    """Say whether an open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except OSError:
        return False
