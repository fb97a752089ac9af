# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program from helpers that have no AnsibleModule, with a time limit or with output that grows in a file."""

from __future__ import annotations

import subprocess


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
        raise OSError("it did not end within %d seconds" % timeout) from error
    return done.returncode, done.stdout or b"", done.stderr or b""
