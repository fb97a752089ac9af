# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a server: real ones answer well, badly, slowly or not at all, and strangers answer for them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.action import vllm_answer as action
from ansible_collections.neuronops.vllm.plugins.module_utils import served
from ansible_collections.neuronops.vllm.plugins.modules import vllm_answer
from ansible_collections.neuronops.vllm.plugins.plugin_utils import observation

from tests.answers import GOOD

KEY = "a-key-of-the-test"
HASH = "0123456789abcdef" * 4
# Serves as its first argument says; the others are those of vLLM.
SERVER = """
import http.server, json, os, socket, sys, time
how, a = sys.argv[1], sys.argv
name, host, port = (a[a.index(option) + 1] for option in ("--served-model-name", "--host", "--port"))
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
class Handler(http.server.BaseHTTPRequestHandler):
    def say(self, status, body):
        if how == "slow":
            time.sleep(30)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if how == "drip":
            for byte in data:
                self.wfile.write(bytes([byte])); self.wfile.flush(); time.sleep(0.3)
        self.wfile.write(data)
    def log_message(self, *_): pass
    def do_GET(self):
        if how == "redirect":
            self.send_response(302); self.send_header("Location", "http://127.0.0.1:1/"); self.end_headers(); return
        self.say(503 if how == "sick" else 200, {"pid": os.getpid()})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer " + os.environ.get("VLLM_API_KEY", ""):
            return self.say(401, {"error": "no key"})
        if asked["model"] != name or how == "other":
            return self.say(404, {"message": "no model; your key is " + os.environ["VLLM_API_KEY"]})
        if how == "nonsense":
            return self.say(200, [1])
        self.say(200, {"choices": [{"text": ""}], "usage": {"completion_tokens": 1}})
if how == "silent":
    time.sleep(1000)
if how == "child" and os.fork():
    time.sleep(1000)
Server((host, int(port)), Handler).serve_forever()
"""


class Systemd:
    """Stands in for systemctl and journalctl: the service is a process of this machine."""

    def __init__(self, pid: int = 0, **properties: str) -> None:
        self.properties = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "Result": "success",
            "MainPID": str(pid),
            "ExecMainStatus": "0",
            "NRestarts": "0",
            "ControlGroup": "/nowhere",
            "InvocationID": "0" * 32,
            **properties,
        }
        self.journal: tuple[int, str, str] = (0, "first\n", "")

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        if command[0] == "journalctl":
            return self.journal
        return 0, "".join(f"{name}={value}\n" for name, value in self.properties.items()), ""


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server, and return when it listens."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    started = []

    def run(how: str = "good", port: int = 0, host: str = "127.0.0.1", key: str = KEY) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), how, "--model", "/m", "--served-model-name", "m", f"--host={host}"]
        command = [part for part in command if not part.startswith("--host=")] + ["--host", host, "--port", str(port)]
        process = subprocess.Popen(
            command,
            env={"VLLM_API_KEY": key, "NEURONOPS_CONFIGURATION": HASH},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            listening = [entry for entry in served.sockets() if entry["state"] == "0A" and entry["port"] == port]
            if (listening and how != "silent") or (how == "silent" and served._words(f"/proc/{process.pid}/environ")):
                break
            time.sleep(0.05)
        return process

    yield run
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.wait()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


def look(pid: int, timeout: float = 2, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = served.look(Systemd(pid), "vllm", timeout, **options)
    # Whatever it is, the controller takes it.
    checked: dict[str, Any] = observation.checked("vllm_answer", {"changed": False, **found}, {})
    return checked


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::", "localhost"])  # noqa: S104 - of the test's own server
def test_a_server_that_answers(start: Start, port: int, host: str) -> None:
    process = start("good", port, host)
    found = look(process.pid)
    assert found["state"] == "answers" and found["problem"] is None, found
    assert (found["pid"], found["configuration"], found["status"], found["tokens"]) == (process.pid, HASH, 200, 1)
    assert (found["address"], found["port"]) == (host, port)
    assert found["listener"]["ours"] is True and found["listener"]["pid"] == process.pid
    assert found["busy"] is None and 0 <= found["seconds"] < 60


def test_a_child_of_the_main_process_may_listen(start: Start, port: int) -> None:
    process = start("child", port)
    found = look(process.pid)
    assert found["state"] == "answers" and found["listener"]["pid"] != process.pid, found


@pytest.mark.parametrize(
    ("how", "state", "words"),
    [
        ("silent", "starting", "nothing of the service listens"),
        ("sick", "errors", "/health answers with status 503"),
        ("redirect", "errors", "/health answers with status 302"),
        ("other", "errors", "status 404"),
        ("nonsense", "errors", "something else"),
        ("slow", "hung", "did not answer /health in time"),
        ("drip", "hung", "did not answer /health in time"),
    ],
)
def test_a_server_that_does_not_serve_does_not_pass(start: Start, port: int, how: str, state: str, words: str) -> None:
    process = start(how, port)
    began = time.monotonic()
    found = look(process.pid, timeout=1)
    assert found["state"] == state and words in found["problem"], found
    assert time.monotonic() - began < 4 and found["tokens"] is None
    assert found["busy"] == "first" and KEY not in json.dumps(found)


def test_a_server_that_was_stopped_hangs(start: Start, port: int) -> None:
    process = start("good", port)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    found = look(process.pid)
    assert found["state"] == "hung" and f"kill -CONT {process.pid}" in found["problem"]


def test_a_server_whose_child_was_stopped_hangs(start: Start, port: int) -> None:
    process = start("child", port)
    pid = look(process.pid)["listener"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    found = look(process.pid, timeout=1)
    assert found["state"] == "hung" and "in time" in found["problem"], found


def test_a_stranger_on_the_port_is_no_proof(start: Start, port: int) -> None:
    stranger, ours = start("good", port), start("silent", port)
    found = look(ours.pid)
    assert found["state"] == "errors" and f"process {stranger.pid}" in found["problem"], found
    assert found["listener"] == {"pid": stranger.pid, "command": found["listener"]["command"], "ours": False}


def test_a_stranger_beside_ours_is_told(start: Start, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start("good", port)
    stranger = start("good", port + 1)
    whole = served.sockets

    def on_one_port(root: str = "/") -> Iterator[dict[str, Any]]:
        for entry in whole(root):
            yield {**entry, "port": port} if entry["state"] == "0A" and entry["port"] == port + 1 else entry

    monkeypatch.setattr(served, "sockets", on_one_port)
    found = look(process.pid)
    assert found["state"] == "errors" and f"process {stranger.pid}" in found["problem"], found


def test_who_listens_is_told_where_nothing_of_ours_runs(start: Start, port: int) -> None:
    nothing = Systemd(0, LoadState="not-found", ActiveState="inactive")
    assert served.look(nothing, "vllm", 2, "127.0.0.1", port)["listener"] is None
    stranger = start("good", port)
    found = served.look(nothing, "vllm", 2, "127.0.0.1", port)
    assert found["state"] == "absent" and found["listener"]["pid"] == stranger.pid and not found["listener"]["ours"]
    assert served.look(nothing, "vllm", 2, "0.0.0.0", port)["listener"]  # noqa: S104 - compared with what listens
    assert served.look(nothing, "vllm", 2, "::1", port)["listener"] is None


def test_what_is_sent_elsewhere_by_the_kernel_is_no_proof(
    start: Start, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule of a container's network leads the connection away: the kernel has no socket of ours at its end."""
    process = start("good", port)
    whole = served.sockets

    def without(root: str = "/") -> Iterator[dict[str, Any]]:
        yield from (entry for entry in whole(root) if entry["state"] == "0A")

    monkeypatch.setattr(served, "sockets", without)
    found = look(process.pid, timeout=5)
    assert found["state"] == "errors" and "does not reach it" in found["problem"], found


def test_the_key_goes_to_nobody_but_the_servers_own_process(
    start: Start, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("good", port)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert look(process.pid)["state"] == "answers"


@pytest.mark.parametrize(
    ("properties", "state", "words"),
    [
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "absent", "there is no vllm.service"),
        ({"ActiveState": "inactive"}, "stopped", "is stopped"),
        ({"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "1"}, "ended", "(exit-code, status 1)"),
        ({"ActiveState": "failed", "Result": "start-limit-hit"}, "ended", "too often to be started again"),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, "ended", "systemd will start it again"),
        ({"ActiveState": "activating", "SubState": "start"}, "starting", "is being started"),
        ({"ActiveState": "deactivating", "SubState": "stop"}, "ended", "is being stopped"),
    ],
)
def test_what_systemd_knows_is_told(properties: dict[str, str], state: str, words: str) -> None:
    found = served.look(Systemd(0, NRestarts="3", **properties), "vllm", 1)
    assert found["state"] == state and words in found["problem"] and found["restarts"] == 3


def test_a_host_without_systemd_has_no_service() -> None:
    assert served.look(lambda _command: (127, "", "not found"), "vllm", 1)["state"] == "absent"


def test_the_last_line_of_the_journal_is_safe_to_show(start: Start, port: int) -> None:
    process = start("silent", port)
    systemd = Systemd(process.pid)
    systemd.journal = (0, f"one\n\x1b[31mkey {KEY} \x07\u202e{'x' * 500}\n\n", "")
    found = served.look(systemd, "vllm", 1)
    assert found["busy"].startswith("key *** ??xxx") and len(found["busy"]) < 210 and found["busy"].isprintable()
    systemd.journal = (1, "", "No journal files were found.")
    assert served.look(systemd, "vllm", 1)["busy"] is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "9000", "--host=::1"], ("::1", 9000, None, None)),
        (["--port=9000", "--port", "9001", "--served_model_name", "a b"], (None, 9001, None, "a b")),
        (["--model", "/m", "--port", "x"], (None, 8000, "/m", None)),
        (["--port", "70000", "--model"], (None, 8000, "", None)),
        ([], (None, 8000, None, None)),
    ],
)
def test_the_command_line_says_where_it_listens(arguments: list[str], expected: tuple[Any, ...]) -> None:
    assert tuple(served.options(arguments)[name] for name in ("host", "port", "model", "served_model_name")) == expected


def test_processes_are_those_of_the_control_group(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/system.slice/vllm.service"
    (group / "below").mkdir(parents=True)
    (group / "cgroup.procs").write_text("7\n8\n")
    (group / "below" / "cgroup.procs").write_text("9\n")
    for pid, parent in ((7, 1), (10, 9), (11, 10), (12, 1)):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/stat").write_text(f"{pid} (a) b) S {parent} " + " ".join(["0"] * 20))
    assert served._processes(7, "/system.slice/vllm.service", str(tmp_path)) == {7, 8, 9, 10, 11}
    assert served._processes(7, "/../../etc", str(tmp_path)) == {7}


def test_addresses_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    net = tmp_path / "proc/net"
    net.mkdir(parents=True)
    line = "   0: {} 00000000:0000 0A 0:0 00:0 0 999 0 4711 1\n"
    (net / "tcp").write_text("head\n" + line.format("0100007F:1F40") + "cut off\n")
    mapped = "0000000000000000FFFF00000100007F:1F41"
    wide = "00000000000000000000000001000000:1F42"
    zeros = "0" * 32 + ":0000"
    (net / "tcp6").write_text(
        "head\n" + "".join(line.format(one).replace("00000000:0000", zeros, 1) for one in (mapped, wide))
    )
    found = [(entry["address"], entry["port"], entry["inode"]) for entry in served.sockets(str(tmp_path))]
    assert found == [("127.0.0.1", 8000, "4711"), ("127.0.0.1", 8001, "4711"), ("::1", 8002, "4711")]


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="needs root, and a Python that others may run"
)
def test_processes_of_others_are_seen_where_root_may_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(
        [
            "/usr/bin/python3",
            "-c",
            "import socket, time; s = socket.socket(); s.listen(); print(1, flush=True); time.sleep(99)",
        ],
        stdout=subprocess.PIPE,
        user=65534,
        group=65534,
    )
    try:
        assert process.stdout is not None and process.stdout.readline()
        seen = served._sockets_seen
        monkeypatch.setattr(served, "_sockets_seen", lambda pid, root: seen(pid, root) if os.geteuid() else denied())
        assert len(served._sockets_of([process.pid], "/")[process.pid]) == 1
    finally:
        process.kill()
        process.wait()


def denied() -> set[str]:
    raise PermissionError


def test_the_module_needs_root(
    run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, start: Start, port: int
) -> None:
    process = start("good", port)
    monkeypatch.setattr(vllm_answer, "run", Systemd(process.pid))
    monkeypatch.setattr(vllm_answer.os, "geteuid", lambda: 0)
    assert run_module(vllm_answer, service="vllm")["state"] == "answers"
    assert "service is" in run_module(vllm_answer, service="a/b")["msg"]
    monkeypatch.setattr(vllm_answer.os, "geteuid", lambda: 1000)
    assert "must be root" in run_module(vllm_answer, service="vllm")["msg"]


class Task:
    delegate_to = None

    def __init__(self, **args: Any) -> None:
        self.args = args


def asked(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]], **arguments: Any
) -> tuple[dict[str, Any], list[str]]:
    """Return what the action answers, and what it showed, of a host that answers one after the other."""
    left, shown = list(answers), []
    module = action.ActionModule.__new__(action.ActionModule)
    module._task, module._variables = Task(service="vllm", **arguments), {"inventory_hostname": "host1"}
    monkeypatch.setattr(observation.CheckedAction, "ask", lambda _self: left.pop(0))
    monkeypatch.setattr(action.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(action, "SAY", -1)
    monkeypatch.setattr(action.Display, "display", lambda _self, text: shown.append(text))
    result: dict[str, Any] = module.ask()
    assert left == []
    return result, shown


def answer(**changes: Any) -> dict[str, Any]:
    return {**GOOD["vllm_answer"], "restarts": 0, "listener": None, "seconds": 1, **changes}


def test_the_controller_waits_and_says_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = answer(state="starting", problem="nothing listens", busy="Compiling")
    found, shown = asked(monkeypatch, [starting, starting, answer(state="answers")], wait="20", restarts=0)
    assert found["state"] == "answers"
    assert (
        len(shown) == 2 and "host1: waiting for 0 of 20 s for vllm" in shown[0] and "busy with: Compiling" in shown[0]
    )


def test_the_controller_ends_where_the_server_has(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _shown = asked(monkeypatch, [answer(state="starting"), answer(state="ended")], wait=20)
    assert found["state"] == "ended"
    again = [answer(state="starting"), answer(state="answers", restarts=1)]
    assert asked(monkeypatch, again, wait=20)[0]["state"] == "ended"
    assert asked(monkeypatch, [{"failed": True, "msg": "x"}], wait=20)[0]["failed"]
    # What has not its form is not asked again, and is refused by the check of all answers.
    assert asked(monkeypatch, [answer(state="fine")], wait=20)[0]["state"] == "fine"
    assert asked(monkeypatch, [answer(state="answers")], wait="soon")[0]["state"] == "answers"
