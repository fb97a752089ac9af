# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program from helpers that have no AnsibleModule, with a time limit or with output that grows in a file."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess

# What a program that we start gets of the caller's variables. Everything else, PYTHONPATH and LD_PRELOAD among it,
# would let whoever set it decide what root runs.
INHERITED = re.compile(
    r"(?:PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR|NETRC"
    r"|(?:HTTP|HTTPS|ALL|NO|FTP)_PROXY|(?:http|https|all|no|ftp)_proxy"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|SSL_CLIENT_CERT|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|PIP_(?:CERT|CLIENT_CERT|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|DEFAULT_TIMEOUT|TIMEOUT"
    r"|RETRIES|PROXY|CACHE_DIR|KEYRING_PROVIDER)"
    r"|UV_(?:DEFAULT_INDEX|INDEX|INDEX_[A-Z0-9_]+_(?:USERNAME|PASSWORD)|FIND_LINKS|INSECURE_HOST|CACHE_DIR|LINK_MODE"
    r"|HTTP_TIMEOUT|HTTP_RETRIES|KEYRING_PROVIDER|NO_INDEX))\Z"
)
# No folder of the caller, in which programs would find modules and configuration.
FOLDER = "/"
# Wrappers of interpreters print lines of their own before and behind an answer.
MARK = "neuronops answers: "


class NoAnswerError(OSError):
    """A program that was not heard to the end, which says nothing about whether it works."""


def environment(variables=None, **more):
    """Return the environment for a program that we start: what is allowed of `variables`, and `more`."""
    known = os.environ if variables is None else variables
    found = {name: value for name, value in known.items() if INHERITED.match(name)}
    found.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    found.update(PYTHONNOUSERSITE="1", PYTHONSAFEPATH="1", **more)
    return found


def run(command, stdin=b"", output=subprocess.PIPE, together=False, timeout=None, cwd=None, env=None):
    """Run a program to its end and return its exit status, what it printed and what it printed as errors, as bytes.

    output: an open file that gets what is printed, in place of the caller; together: errors go where output goes.
    Raises OSError when the program cannot be started or takes longer than `timeout` seconds.
    """
    try:
        # AnsibleModule.run_command has no time limit, and gives the output only when all is over.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command,
            input=stdin,
            stdout=output,
            stderr=subprocess.STDOUT if together else subprocess.PIPE,
            timeout=timeout,
            cwd=cwd,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError("it did not end within %d seconds" % timeout) from error
    return done.returncode, done.stdout or b"", done.stderr or b""


def ask_python(python, expression):
    """Return what an interpreter answers to an expression, which has a value that JSON can write.

    Raises OSError when it does not run, and NoAnswerError when what it printed holds no answer, or it was not heard.
    """
    code = "import json, os, sys; print(); print(%r + json.dumps(%s))" % (MARK, expression)
    try:
        status, output, errors = run([python, "-I", "-c", code], timeout=60, cwd=FOLDER, env=environment())
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE):
            raise NoAnswerError(str(error)) from error
        raise
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        raise NoAnswerError("it was killed by signal %d" % -status)
    said = output.decode(errors="replace")
    if status != 0:
        raise OSError("it ended with status %d: %s" % (status, errors.decode(errors="replace").strip()[-500:]))
    answers = [line[len(MARK) :] for line in said.split("\n") if line.startswith(MARK)]
    if not answers:
        raise NoAnswerError("it answered %s" % ascii(said[-200:]))
    try:
        return json.loads(answers[-1])
    except (ValueError, RecursionError) as error:
        raise NoAnswerError("it answered %s" % ascii(answers[-1][:200])) from error
