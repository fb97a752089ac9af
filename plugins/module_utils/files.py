# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a file so that nobody ever reads half of it, tell whether it is still that one, and read what others wrote."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile

BLOCK = 1 << 20
LARGEST = 64 << 20  # bytes of a file that is read as a whole


@contextlib.contextmanager
def replacing(path, mode=0o644, owner=None):
    """Yield a file opened for bytes that takes the place of `path` when all went well, and is removed when not.

    Nobody but its writer reads it before it is whole and has its mode. A link is replaced, and not what it leads to.
    owner: (user, group) by number; by default who writes. The folder has to be there. Raises OSError.
    """
    folder, name = os.path.split(os.path.abspath(path))
    # A name of its own: two may write the same file at a time, and each leaves a whole one.
    start = ".%s.new-" % name[:100]
    _remove_left(folder, start)
    handle, temporary = tempfile.mkstemp(prefix="%s%d-" % (start, os.getpid()), dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if owner:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            # Without it a power cut may leave the name with nothing behind it.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _remove_left(folder, start):
    """Remove what a writer that was killed has left."""
    for entry in os.listdir(folder):
        pid = entry[len(start) :].partition("-")[0]
        if entry.startswith(start) and pid.isdigit() and not _is_alive(int(pid)):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, entry))


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to somebody else
        pass
    return True


def write_at_once(path, content, mode=0o644, owner=None):
    """Replace a file by one with this content, text or bytes; raises OSError, and then the old one is as it was."""
    with replacing(path, mode, owner) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def shown(name):
    """Return the name of a file as text that can be printed and sent."""
    return name if re.match(r"[\x20-\x7e]*\Z", name) else ascii(name)[1:-1]


def content(path):
    """Return the text of a file that somebody else wrote; raises OSError, or ValueError with what is wrong with it."""
    with open(path, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is no file")
        read = file.read(LARGEST + 1)
    if len(read) > LARGEST:
        raise ValueError("has more than %d bytes" % LARGEST)
    if b"\0" in read:
        raise ValueError("has zeros in it, as after a power cut")
    try:
        return read.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("is not written in UTF-8") from error


def sha256(path):
    """Return the SHA-256 of a file in hexadecimal, or None when it cannot be read or is no regular file."""
    digest = hashlib.sha256()
    try:
        # Opening what is no file may wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(BLOCK), b""):
                digest.update(block)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def _sync_folder(folder):
    """Let the new name outlast a power cut too, where the file system can do that for folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
