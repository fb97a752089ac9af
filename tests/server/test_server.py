# SPDX-License-Identifier: GPL-3.0-or-later
"""Role vllm_server on a real systemd: what it says of a server is what that server answered in the same run."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.server.conftest import CHECKOUT, Host, environment

EDITED = "sed -i s,/opt/stub/active/bin/python,/nonexistent, /etc/systemd/system/vllm.service"


def states(host: Host) -> list[str]:
    return [entry["state"] for entry in host.history()]


def test_a_server_that_serves_is_left_alone(host: Host) -> None:
    first = host.role("good")
    assert first.code == 0 and first.changed, first.said
    pid = host.show("MainPID")
    second = host.role("good")
    assert second.code == 0 and not second.changed, second.said
    assert host.show("MainPID") == pid and states(host) == ["proven"]
    checked = host.role("other", "--check", "--diff")
    assert checked.code == 0 and "what runs has another configuration" in checked.said
    assert host.show("MainPID") == pid and states(host) == ["proven"]


def test_a_hung_server_is_started_again(host: Host) -> None:
    assert host.role("good").code == 0
    host.sh("systemctl kill -s STOP vllm")
    assert not host.serves()
    left = host.role("good", restart_unhealthy=False)
    assert left.code != 0 and "is stopped" in left.said and not left.changed
    again = host.role("good")
    assert again.code == 0 and "is stopped" in again.said and host.serves(), again.said
    assert not host.role("good").changed


@pytest.mark.thorough
def test_a_server_that_answers_errors_does_not_pass(host: Host) -> None:
    run = host.role("wrong")
    assert run.code != 0 and "status 404" in run.said, run.said
    assert states(host) == ["failed"] and host.show("ActiveState") == "inactive"


@pytest.mark.thorough
def test_a_start_that_was_never_proven_is_not_believed(host: Host) -> None:
    for _run in range(2):
        run = host.role("hang", health_timeout=6)
        assert run.code != 0 and "it was not healthy within 6 seconds" in run.said, run.said
        assert "Nothing is served there now" in run.said
        # What has never served does not start for ever.
        assert host.show("ActiveState") == "inactive" and host.show("UnitFileState") == "disabled"
    assert host.sh("ls -d /opt/stub/active; true") == ""


def test_a_run_that_was_killed_is_continued(host: Host) -> None:
    assert host.role("good").code == 0
    process = subprocess.Popen(
        host.command("hang"), cwd=CHECKOUT, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while states(host)[-1] != "pending" and time.monotonic() < deadline:
        time.sleep(0.3)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert states(host) == ["proven", "pending"]
    run = host.role("hang", health_timeout=6)
    assert run.code != 0 and "What served before serves again" in run.said, run.said
    assert host.serves() and host.history()[-1]["release"] == "/opt/stub/good"
    assert states(host)[-2:] == ["failed", "proven"]


@pytest.mark.thorough
def test_a_pending_server_that_answers_is_proven_without_a_restart(host: Host) -> None:
    assert host.role("good").code == 0
    pid = host.show("MainPID")
    host.sh('sed -i \'s/"state": "proven"/"state": "pending"/\' /var/lib/neuronops/activations.json')
    assert host.role("good").code == 0
    assert host.show("MainPID") == pid and states(host) == ["proven"]


def test_going_back_is_judged_by_what_went_back(host: Host) -> None:
    assert host.role("good").code == 0
    run = host.role("dead", port=8001, served_model_name="another", api_key="other")
    assert run.code != 0 and "it ended before it was healthy" in run.said, run.said
    assert "What served before serves again" in run.said and "ValueError: no device" in run.said
    assert "journalctl --unit vllm --since @" in run.said
    assert host.serves(8000) and host.sh("readlink /opt/stub/active") == "/opt/stub/good"


@pytest.mark.thorough
def test_what_comes_back_is_what_was_proven(host: Host) -> None:
    assert host.role("good").code == 0
    host.sh(EDITED)
    assert "What served before serves again" in host.role("dead").said
    assert host.serves()


@pytest.mark.thorough
def test_what_is_installed_decides(host: Host) -> None:
    assert host.role("good").code == 0
    pid = host.show("MainPID")
    host.sh("sed -i s/neuron218/neuron219/ /opt/stub/good/neuronops/vllm.json")
    assert host.role("good").code == 0 and host.show("MainPID") != pid
    pid = host.show("MainPID")
    host.sh("sed -i s/NoNewPrivileges=true/NoNewPrivileges=false/ /etc/systemd/system/vllm.service")
    assert host.role("good").code == 0 and host.show("MainPID") != pid
    assert host.show("NeedDaemonReload") == "no" and host.show("NoNewPrivileges") == "yes"
    host.sh("sed -i s/VLLM_NO_USAGE_STATS/X/ /etc/neuronops/vllm.env")
    assert host.role("good").changed and not host.role("good").changed


def test_a_stranger_on_the_port_is_no_proof(host: Host) -> None:
    host.sh(
        "nohup /opt/stub/good/bin/python -m vllm.entrypoints.openai.api_server --served-model-name m --port 8000 "
        "> /dev/null 2>&1 & sleep 1"
    )
    run = host.role("dead")
    assert run.code != 0 and "is held by python (process" in run.said and "Nothing was changed" in run.said, run.said
    assert not run.changed and host.show("LoadState") == "not-found"


@pytest.mark.thorough
def test_a_service_of_somebody_else_is_refused(host: Host) -> None:
    host.sh(
        "printf '[Service]\\nExecStart=/usr/bin/python3 -m http.server 8000 --bind 127.0.0.1\\n' "
        "> /etc/systemd/system/vllm.service; systemctl daemon-reload; systemctl start vllm"
    )
    pid = host.show("MainPID")
    for state in ("present", "stopped", "absent"):
        run = host.role("good", state=state)
        assert run.code != 0 and "is not of this collection" in run.said and not run.changed, run.said
    assert host.show("MainPID") == pid
    host.sh("systemctl stop vllm; rm /etc/systemd/system/vllm.service; systemctl mask vllm")
    run = host.role("good")
    assert run.code != 0 and "systemctl unmask vllm.service" in run.said and not run.changed, run.said


@pytest.mark.thorough
def test_a_server_that_ends_with_status_0_comes_back(host: Host) -> None:
    assert host.role("zero").code == 0
    time.sleep(8)
    assert host.show("SubState") == "auto-restart" or int(host.show("NRestarts")) > 0
    host.sh("for n in $(seq 60); do test $(systemctl show -p NRestarts --value vllm) -gt 0 && break; sleep 0.5; done")
    assert int(host.show("NRestarts")) > 0
    host.sh("systemctl stop vllm")
    assert host.show("ActiveState") == "inactive"


def test_a_rotated_key_is_nowhere_any_more(host: Host) -> None:
    def kept(key: str) -> list[str]:
        return host.sh(f"grep -rl {key} /etc/neuronops /var/lib/neuronops /etc/systemd; true").split()

    assert host.role("good", api_key="key-that-is-old").code == 0
    assert host.role("good", api_key="key-that-is-new").code == 0
    assert kept("key-that-is-old") == []
    assert host.role("other", api_key="key-that-is-new", port=8002).code == 0
    back = host.role("other", part="rollback")
    assert back.code == 0 and host.serves(8000) and not host.serves(8002), back.said
    assert host.sh("readlink /opt/stub/active") == "/opt/stub/good"
    assert "key-that-is-new" in host.sh("cat /proc/$(systemctl show -p MainPID --value vllm)/environ | tr '\\0' '\\n'")
    assert host.sh("stat -c %a /var/lib/neuronops/activations /var/lib/neuronops/activations.json").split() == [
        "700",
        "600",
    ]
    refused = host.role("other", part="rollback", rollback_to="nothing")
    assert refused.code != 0 and "There is: other" in refused.said and host.serves(8000), refused.said


@pytest.mark.thorough
def test_going_back_twice_asks_the_server_and_starts_one_that_hangs(host: Host) -> None:
    assert host.role("good").code == 0 and host.role("other").code == 0
    assert host.role("other", part="rollback").changed
    pid = host.show("MainPID")
    again = host.role("other", part="rollback")
    assert again.code == 0 and not again.changed and "good is active already" in again.said, again.said
    # systemd has started it again in between: that is no reason to fail.
    host.sh(f"kill -9 {pid}; for n in $(seq 60); do curl -sf http://127.0.0.1:8000/health && break; sleep 0.5; done")
    assert not host.role("other", part="rollback").changed and host.show("MainPID") != pid
    host.sh("systemctl kill -s STOP vllm")
    mended = host.role("other", part="rollback")
    assert mended.code == 0 and mended.changed and host.serves(), mended.said
    assert host.sh("readlink /opt/stub/active") == "/opt/stub/good" and states(host)[-1] == "proven"


@pytest.mark.thorough
def test_a_drop_in_that_makes_it_another_server_is_refused(host: Host) -> None:
    assert host.role("good").code == 0
    pid, folder = host.show("MainPID"), "/etc/systemd/system/vllm.service.d"
    host.sh(f"mkdir {folder}; printf '[Service]\\nMemoryHigh=8G\\n' > {folder}/mine.conf; systemctl daemon-reload")
    named = host.role("good")
    assert named.code == 0 and not named.changed and f"{folder}/mine.conf is not of this collection" in named.said
    host.sh(f"printf '[Service]\\nRestart=no\\n' > {folder}/mine.conf; systemctl daemon-reload")
    for part in ("main", "rollback"):
        refused = host.role("other", part=part)
        assert refused.code != 0 and f"{folder}/mine.conf sets Restart of vllm.service" in refused.said, refused.said
    assert host.show("MainPID") == pid and states(host) == ["proven"]


def test_stopped_and_absent_leave_nothing_of_the_service(host: Host) -> None:
    assert host.role("good").code == 0
    assert host.role("good", state="stopped").changed and not host.role("good", state="stopped").changed
    assert host.show("ActiveState") == "inactive" and host.show("UnitFileState") == "disabled"
    assert host.role("good").code == 0 and host.serves()
    removed = host.role("good", state="absent")
    assert removed.code == 0 and "What stays:" in removed.said and not host.serves(), removed.said
    assert host.sh("ls -d /etc/neuronops /etc/systemd/system/vllm.service /opt/stub/active; true") == ""
    assert host.history() == [] and host.sh("ls /var/lib/neuronops/activations") == ""
    assert not host.role("good", state="absent").changed


@pytest.mark.thorough
def test_a_host_without_a_journal_goes_back_all_the_same(host: Host) -> None:
    assert host.role("good").code == 0
    host.sh("mv /usr/bin/journalctl /usr/bin/journalctl.away")
    run = host.role("dead")
    assert run.code != 0 and "What served before serves again" in run.said and "no journal of it" in run.said, run.said
    assert host.serves()


def test_what_served_before_there_was_a_history_is_a_way_back(host: Host) -> None:
    assert host.role("good").code == 0
    host.sh("rm -rf /var/lib/neuronops")
    run = host.role("dead")
    assert "What served before serves again" in run.said and host.serves(), run.said
    host.sh("rm -rf /var/lib/neuronops")
    assert host.role("good").changed and states(host) == ["proven"] and not host.role("good").changed
