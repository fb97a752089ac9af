# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read files of a host that somebody else wrote, and write files that are whole or not there."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile

LARGEST = 64 << 20  # bytes of a file that is read as a whole


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
    """Return the SHA-256 of a file in hexadecimal, or None when it cannot be read."""
    digest = hashlib.sha256()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def write(path, text, mode):
    """Replace a file at once: after a power cut it is the old one or the new one, and never a part; raises OSError."""
    folder = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".%s." % os.path.basename(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)  # the name too
    finally:
        os.close(opened)
