# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment that the demonstration, the proof and the sandbox run in, whatever the shell they are started from.

    python -I sandbox/environment.py COMMAND [ARGUMENT ...]    runs a command in it

What is kept says who and where one is, and how packages are reached from here: proxies, indexes and certificates. All
else is left out, AWS_*, ANSIBLE_*, MOLECULE_* and PYTHON* among it; the language is C.UTF-8 and the umask 022.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

KEPT = {
    # Who and where.
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "NO_COLOR", "TMPDIR", "XDG_CACHE_HOME", "CI", "PYENV_ROOT",
    # What the targets take themselves.
    "NEURON_STACK",
    # Where Docker is.
    "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY",
    # Whom to believe.
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE",
    # How the network is reached.
    "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
    # Where packages come from.
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_CLIENT_CERT",
    "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_TIMEOUT", "PIP_RETRIES", "PIP_CONFIG_FILE", "PIP_CACHE_DIR",
    "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INSECURE_HOST",
    "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES", "UV_CONFIG_FILE", "UV_CACHE_DIR",
}  # fmt: skip
# The tests and the stand-ins listen here, and no proxy may stand between.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def stated(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment is kept, with what is always so."""
    result = {name: value for name, value in environ.items() if name in KEPT or name.startswith("NEURONOPS_")}
    past = [part.strip() for name in ("no_proxy", "NO_PROXY") for part in environ.get(name, "").split(",")]
    no_proxy = ",".join(dict.fromkeys([*filter(None, past), *LOOPBACK]))
    fixed = {"LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "no_proxy": no_proxy, "NO_PROXY": no_proxy}
    return {**result, **fixed}


def enter() -> None:
    """Have this process and all that it starts run in the stated environment."""
    own = stated(os.environ)
    os.environ.clear()
    os.environ.update(own)
    os.umask(0o022)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    enter()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command is the caller's own
