# SPDX-License-Identifier: GPL-3.0-or-later
"""How the host is asked whether a long installation has ended: one command, which waits there."""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.action.python_packages import WAIT

# What ansible-core 2.17 and 2.19 write while the job runs, and what every version leaves when it has ended.
AT_WORK = ('{"started": 1, "finished": 0, "ansible_job_id": "j1"}', '{"started": true, "finished": false}')
ENDED = '{"changed": true}'


def wait(folder: Path, seconds: int) -> tuple[float, str]:
    """Run the command and return how long it took, in seconds, and what it printed."""
    command = WAIT.format(
        file=shlex.quote(str(folder / "a job")), log=shlex.quote(str(folder / "log")), seconds=seconds
    )
    start = time.monotonic()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return time.monotonic() - start, done.stdout


@pytest.mark.parametrize("state", AT_WORK)
def test_it_waits_while_the_job_is_at_work_and_then_says_what_it_does(tmp_path: Path, state: str) -> None:
    (tmp_path / "a job").write_text(state)
    (tmp_path / "log").write_text("Resolving\nDownloading torch\n")
    took, said = wait(tmp_path, seconds=2)
    assert took >= 2
    assert said == "Downloading torch\n"


@pytest.mark.parametrize("state", AT_WORK)
def test_the_end_of_the_job_ends_the_wait(tmp_path: Path, state: str) -> None:
    (tmp_path / "a job").write_text(state)
    ends = threading.Timer(1.5, (tmp_path / "a job").write_text, [ENDED])
    ends.start()
    took, _said = wait(tmp_path, seconds=30)
    ends.join()
    assert took < 15


def test_a_job_that_left_nothing_is_not_waited_for(tmp_path: Path) -> None:
    took, _said = wait(tmp_path, seconds=30)
    assert took < 15
