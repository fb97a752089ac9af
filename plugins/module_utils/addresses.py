# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare and judge URLs by their parts, never as text: one address is written in many ways."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "ftp": 21}


def parts(url):
    """Return (scheme, host, port, path) of a URL as they compare; the user and what follows the path do not count.

    Raises ValueError for a text that is no URL.
    """
    split = urlsplit(url)
    host = (split.hostname or "").rstrip(".").lower()
    port = split.port or DEFAULT_PORTS.get(split.scheme.lower())
    path = []
    for part in unquote(split.path).split("/"):
        if part == "..":
            del path[-1:]
        elif part not in ("", "."):
            path.append(part)
    return split.scheme.lower(), host, port, "/" + "/".join(path)


def same(one, other):
    """Say whether two URLs are one address; a text that is no URL is the same as itself alone."""
    try:
        return parts(one) == parts(other)
    except ValueError:
        return one == other


def has_credentials(url):
    """Say whether a URL holds a secret: a password, or over HTTP any user, who may be a token.

    The user of an SSH address is a name that everybody may see. A text that cannot be taken apart counts as one that
    holds a secret when there is an @ in it.
    """
    try:
        split = urlsplit(url)
        secret = split.password is not None or (
            split.username is not None and split.scheme.lower() not in ("ssh", "git+ssh")
        )
    except ValueError:
        return "@" in url
    # user:password@host without a scheme, as proxies are written too
    return secret or bool(re.match(r"^[^/@:\s]+:[^/@\s]*@", url) and not split.netloc)


def shown(url):
    """Return a URL without user, password, query and fragment, which may be secrets, for messages and files."""
    try:
        split = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2]
    return urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, "", ""))
