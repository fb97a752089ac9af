# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a server for an answer, and make sure that it is the server's own process that gives it.

Address, port, name of the model and key are those of the running process, from its command line and its environment;
what the caller wishes decides on nothing. A request is sent when the kernel says that the connection ended in a
process of the service, so that no stranger on the port can give a proof or see the key.

Functions that take `root` look at a host in a folder. Commands go through `run`, a function that takes an argument list
and returns (exit status, standard output, standard error).
"""

from __future__ import annotations

import contextlib
import glob
import http.client
import json
import os
import re
import socket
import sys
import threading
import time

from ansible_collections.neuronops.vllm.plugins.module_utils import activations, forms

LONGEST_LINE = 200  # characters of what the server is busy with
LARGEST = 1 << 20  # bytes of an answer
DEFAULT_PORT = 8000
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "ExecMainStatus",
    "NRestarts",
    "ControlGroup",
    "InvocationID",
)
_LISTENS = "0A"
_ANY = ("0.0.0.0", "::")  # noqa: S104 - what is compared with; nothing is bound to it


class _NoAnswerError(Exception):
    """There was no answer that proves anything: state and sentence."""

    def __init__(self, state, problem):
        super().__init__(problem)
        self.state = state


def below(root, path):
    return os.path.join(root, path.lstrip("/"))


def look(run, service, timeout, address=None, port=None, root="/"):
    """Return what a server says of itself when it is asked for one token; it ends within `timeout` seconds or a little
    more.

    address, port: where a server is to listen, for hosts where none runs yet; `listener` is who has that place.
    """
    deadline = time.monotonic() + timeout
    state = _properties(run, service)
    pid = int(state["MainPID"]) if re.match(r"[1-9][0-9]{0,9}\Z", state["MainPID"]) else None
    arguments = _words(below(root, "proc/%s/cmdline" % pid)) if pid else []
    environment = dict(
        word.partition("=")[::2]
        for word in (_words(below(root, "proc/%s/environ" % pid)) if pid else [])
        if "=" in word
    )
    answer = {
        "state": "absent",
        "problem": None,
        "pid": pid,
        "configuration": forms.known("hash", environment.get("NEURONOPS_CONFIGURATION")),
        "seconds": _age(pid, root) if pid else None,
        "status": None,
        "tokens": None,
        "address": None,
        "port": None,
        "listener": None,
        "busy": None,
        "restarts": int(state["NRestarts"]) if re.match(r"[0-9]{1,9}\Z", state["NRestarts"]) else 0,
    }
    pids = _processes(pid, state["ControlGroup"], root) if pid else set()
    given = options(arguments)
    if pid:
        answer["address"] = forms.known("address of a server", given["host"]) or "0.0.0.0"  # noqa: S104 - vLLM's default
        answer["port"] = given["port"]
    if port or answer["port"]:
        answer["listener"] = listener(address or answer["address"], port or answer["port"], pids, root)
    try:
        answer["state"], answer["problem"] = _without_asking(state, service, pid, root)
        if answer["state"] is None:
            answer["state"] = "answers"
            _ask(answer, given, environment, pids, deadline, root)
    except _NoAnswerError as error:
        answer["state"], answer["problem"] = error.state, clean(str(error), 1000)
    if answer["state"] not in ("answers", "absent", "stopped"):
        answer["busy"] = _last_line(run, service, state["InvocationID"], environment)
    return answer


def _without_secrets(text, environment):
    """Return what a server said without the values of its variables whose names look secret."""
    secrets = [
        value
        for name, value in environment.items()
        if activations.SECRET.search(name) and (len(value) > 3 or (value and name == "VLLM_API_KEY"))
    ]
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _without_asking(state, service, pid, root):
    """Return (state, problem) where systemd or the kernel know that there is nobody to ask, and (None, None) else."""
    unit = service + ".service"
    if state["LoadState"] in ("not-found", "masked") and not pid:
        return "absent", "there is no %s" % unit
    how = "%s ended (%s, status %s)" % (unit, state["Result"] or "unknown", state["ExecMainStatus"] or "unknown")
    if state["SubState"].startswith("auto-restart"):
        return "ended", "%s, and systemd will start it again" % how
    if state["ActiveState"] == "failed":
        return "ended", "%s%s" % (how, ", too often to be started again" if "start-limit" in state["Result"] else "")
    if state["ActiveState"] == "deactivating":
        return "ended", "%s is being stopped" % unit
    if not pid:
        return (
            ("starting", "%s is being started" % unit)
            if state["ActiveState"] == "activating"
            else (("stopped", "%s is stopped" % unit))
        )
    letter = _stat(pid, root)[0]
    if letter in ("T", "t"):
        return "hung", "process %d of %s is stopped; `kill -CONT %d` lets it go on" % (pid, unit, pid)
    if letter in ("Z", "X", ""):
        return "ended", "process %d of %s has ended" % (pid, unit)
    return None, None


def options(arguments):
    """Return what a command line says of host, port, model and served_model_name; the last one counts, as for
    argparse."""
    found = {"host": None, "port": DEFAULT_PORT, "model": None, "served_model_name": None}
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        name = name[2:].replace("-", "_") if name.startswith("--") else ""
        if name not in found:
            continue
        if not equals:
            value = arguments[number + 1] if number + 1 < len(arguments) else ""
        if name != "port":
            found[name] = value
        elif re.match(r"[0-9]{1,5}\Z", value) and 0 < int(value) < 65536:
            found[name] = int(value)
    return found


def _ask(answer, given, environment, pids, deadline, root):
    """Ask for the health and for one token; raises _NoAnswerError."""
    key = environment.get("VLLM_API_KEY")
    ours, foreign = _listeners(answer["address"], answer["port"], pids, root)
    place = "%s:%d" % (answer["address"], answer["port"])
    if foreign:
        other = foreign[0]
        raise _NoAnswerError(
            "errors",
            "%s (process %s), which is none of the service, listens at %s" % (other["command"], other["pid"], place),
        )
    if not ours:
        raise _NoAnswerError("starting", "nothing of the service listens at %s yet" % place)
    name = given["served_model_name"] or given["model"]
    if not name:
        raise _NoAnswerError("errors", "its command line names no model")
    status, _body = _request(ours, "GET", "/health", None, None, pids, deadline, root)
    answer["status"] = status
    if status != 200:
        raise _NoAnswerError("errors", "its /health answers with status %d" % status)
    asked = {"model": name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    status, body = _request(ours, "POST", "/v1/completions", asked, key, pids, deadline, root)
    answer["status"] = status
    if status != 200:
        words = _without_secrets(body.decode("utf-8", "replace"), environment)
        raise _NoAnswerError(
            "errors",
            "asked for a token of %s it answers with status %d: %s" % (clean(name, 100), status, clean(words, 300)),
        )
    answer["tokens"] = _tokens(body)


def _tokens(body):
    """Return how many tokens an answer has; raises _NoAnswerError where it is no answer of a completion."""
    try:
        said = json.loads(body.decode("utf-8"))
        choices = said["choices"]
        text = choices[0]["text"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise _NoAnswerError("errors", "asked for a token it answers something else: %s" % forms.shortened(body[:80]))
    usage = said.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 1000 else 1


def _request(ours, method, path, content, key, pids, deadline, root):
    """Return (status, body) of a request to the listener of our own process; raises _NoAnswerError.

    No proxy is in between, no .netrc is read and no redirection is followed.
    """
    address, port = ours["address"], ours["port"]
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - what it listens on
    late = _NoAnswerError("hung", "it did not answer %s in time" % path)
    left = deadline - time.monotonic()
    if left <= 0:
        raise late
    connection = http.client.HTTPConnection(address, port, timeout=left)
    watch = None
    try:
        connection.connect()
        _check_accepted(connection.sock, pids, deadline, late, root)
        # A server that sends a byte now and then never meets the time limit of a socket.
        watch = threading.Timer(max(deadline - time.monotonic(), 0.01), _shut, [connection.sock])
        watch.daemon = True
        watch.start()
        headers = {"Connection": "close"}
        if key:
            headers["Authorization"] = "Bearer " + key
        body = None
        if content is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(content).encode()
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        status, answer = response.status, response.read(LARGEST)
        if time.monotonic() >= deadline:
            raise late  # what was read may be cut off
        return status, answer
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline - 0.05:
            raise late from error
        raise _NoAnswerError(
            "errors", "it does not answer %s: %s" % (path, str(error) or type(error).__name__)
        ) from error
    finally:
        if watch:
            watch.cancel()
        connection.close()


def _shut(connected):
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _check_accepted(connected, pids, deadline, late, root):
    """Return when a process of the service has accepted the connection.

    That it listens is not enough: rules of a container's network may lead what is sent to it elsewhere.
    """
    here, there = connected.getsockname()[:2], connected.getpeername()[:2]
    wait = time.monotonic() + 2
    while True:
        found = [
            entry
            for entry in sockets(root)
            if entry["address"] == there[0] and entry["port"] == there[1] and entry["remote"] == tuple(here)
        ]
        inodes = {entry["inode"] for entry in found}
        if inodes & _inodes(pids, root):
            return
        if any(inode != "0" for inode in inodes) and time.monotonic() > wait:
            raise _NoAnswerError("errors", "a process that is none of the service accepts what is sent to it")
        if not found and time.monotonic() > wait:
            raise _NoAnswerError("errors", "what is sent to %s:%d does not reach it" % there)
        if time.monotonic() > deadline:
            raise late
        time.sleep(0.02)


def listener(address, port, pids, root="/"):
    """Return who listens on an address and port, a stranger first, or None: {"pid", "command", "ours"}."""
    ours, foreign = _listeners(address, port, pids, root)
    if foreign:
        return {"pid": foreign[0]["pid"], "command": foreign[0]["command"], "ours": False}
    return {"pid": ours["pid"], "command": ours["command"], "ours": True} if ours else None


def _listeners(address, port, pids, root):
    """Return (our listener or None, [those of others]) on an address and port."""
    wanted = _resolved(address)
    found = [
        entry
        for entry in sockets(root)
        if entry["state"] == _LISTENS and entry["port"] == port and _meet(entry["address"], wanted)
    ]
    if not found:
        return None, []
    owners = _owners({entry["inode"] for entry in found}, pids, root)
    ours, foreign = [], []
    for entry in found:
        pid = owners.get(entry["inode"])
        known = dict(entry, pid=pid, command=_command(pid, root))
        (ours if pid in pids else foreign).append(known)
    return (ours[0] if ours else None), foreign


def _meet(address, wanted):
    """Say whether who listens on an address gets or takes away what is sent to one of these."""
    return address in wanted or any(_takes_in(address, one) or _takes_in(one, address) for one in wanted)


def _takes_in(address, other):
    """Say whether an address stands for all, the other one among them; that of IPv4 for those of IPv4 alone."""
    return address in _ANY and (":" in address or ":" not in other)


def _resolved(address):
    try:
        return {entry[4][0] for entry in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return {address}


def sockets(root="/"):
    """Yield the TCP sockets of the host; addresses of IPv4 within IPv6 as those of IPv4."""
    for name in ("tcp", "tcp6"):
        try:
            with open(below(root, "proc/net/" + name), encoding="ascii", errors="replace") as file:
                lines = file.read().split("\n")[1:]
        except OSError:
            continue
        for line in lines:
            parts = line.split()
            if len(parts) < 10:
                continue
            address, port = _endpoint(parts[1])
            yield {
                "address": address,
                "port": port,
                "remote": _endpoint(parts[2]),
                "state": parts[3],
                "inode": parts[9],
            }


def _endpoint(text):
    """Return (address, port) of how /proc/net writes them: words of 32 bits in the order of the machine."""
    address, _colon, port = text.partition(":")
    raw = bytes.fromhex(address)
    if sys.byteorder == "little":
        raw = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    if len(raw) == 16 and raw.startswith(b"\0" * 10 + b"\xff\xff"):
        raw = raw[12:]
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw), int(port, 16)


def _inodes(pids, root):
    """Return the inodes of the sockets that processes have open."""
    return set().union(*_sockets_of(pids, root).values())


def _owners(inodes, pids, root):
    """Return {inode: process}, one of ours where several have it."""
    others = {int(name) for name in _listed(below(root, "proc")) if name.isdigit()} - set(pids)
    found = {}
    for group in (pids, others):
        if not inodes <= set(found):
            for pid, has in sorted(_sockets_of(group, root).items()):
                for inode in has & inodes:
                    found.setdefault(inode, pid)
    return found


def _sockets_of(pids, root):
    """Return {process: {inode}} of the sockets that processes have open.

    In a container root may lack the right to look into processes of others; their owner has it.
    """
    found, denied = {}, {}
    for pid in pids:
        try:
            found[pid] = _sockets_seen(pid, root)
        except PermissionError:
            with contextlib.suppress(OSError):
                status = os.stat(below(root, "proc/%d" % pid))
                denied.setdefault((status.st_uid, status.st_gid), []).append(pid)
    for (uid, gid), members in denied.items():
        if os.geteuid() == 0 and uid != 0:
            found.update(_sockets_as_owner(uid, gid, members, root))
    return found


def _sockets_seen(pid, root):
    """Return the inodes of the sockets that a process has open; raises PermissionError where it may not be seen."""
    found = set()
    folder = below(root, "proc/%d/fd" % pid)
    try:
        for descriptor in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(os.path.join(folder, descriptor))
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    except PermissionError:
        raise
    except OSError:
        return set()  # it has ended
    return found


def _sockets_as_owner(uid, gid, pids, root):
    """Return the same from a process with the rights of their owner."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            said = {}
            for pid in pids:
                with contextlib.suppress(OSError):
                    said[pid] = sorted(_sockets_seen(pid, root))
            with os.fdopen(writing, "w") as stream:
                json.dump(said, stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    try:
        return {int(pid): set(inodes) for pid, inodes in json.loads(text).items()}
    except ValueError:
        return {}


def _command(pid, root):
    """Return the name of a process; its command line may hold secrets."""
    return clean(_read(below(root, "proc/%s/comm" % pid)).strip(), 100) or "a process that cannot be seen"


def _processes(pid, group, root):
    """Return the ids of the processes of a service: of its control group, and what its main process has started."""
    found = {pid}
    if re.match(r"/[^\0]+\Z", group or "") and ".." not in group:
        for top in ("sys/fs/cgroup", "sys/fs/cgroup/systemd", "sys/fs/cgroup/unified"):
            folder = glob.escape(below(root, top + group))
            for file in glob.glob(folder + "/cgroup.procs") + glob.glob(folder + "/**/cgroup.procs", recursive=True):
                found.update(int(word) for word in _read(file).split() if word.isdigit())
    parents = {}
    for name in _listed(below(root, "proc")):
        if name.isdigit():
            parents[int(name)] = _stat(int(name), root)[1]
    size = 0
    while size != len(found):
        size = len(found)
        found.update(child for child, parent in parents.items() if parent in found)
    return found


def _stat(pid, root):
    """Return (state, parent, start in ticks) of a process; ("", 0, 0) where there is none."""
    parts = _read(below(root, "proc/%d/stat" % pid)).rpartition(")")[2].split()
    if len(parts) < 20 or not parts[1].isdigit() or not parts[19].isdigit():
        return "", 0, 0
    return parts[0], int(parts[1]), int(parts[19])


def _age(pid, root):
    """Return for how many whole seconds a process has been there."""
    uptime = re.match(r"[0-9]{1,12}", _read(below(root, "proc/uptime")))
    start = _stat(pid, root)[2] // os.sysconf("SC_CLK_TCK")
    return max(0, int(uptime.group(0)) - start) if uptime else 0


def _properties(run, service):
    status, output, _error = run(
        ["systemctl", "show", "--property=" + ",".join(_PROPERTIES), "--", service + ".service"]
    )
    found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line) if status == 0 else {}
    defaults = {"LoadState": "not-found", "ActiveState": "inactive"}
    return {name: found.get(name) or defaults.get(name, "") for name in _PROPERTIES}


def _last_line(run, service, invocation, environment):
    """Return the last line that the server wrote, safe to show, or None."""
    command = [
        "journalctl",
        "--unit",
        service + ".service",
        "--output",
        "cat",
        "--no-pager",
        "--quiet",
        "--lines",
        "20",
    ]
    if re.match(r"[0-9a-f]{32}\Z", invocation):
        command.append("_SYSTEMD_INVOCATION_ID=" + invocation)
    status, output, _error = run(command)
    if status != 0:
        return None
    output = _without_secrets(output, environment)
    lines = [line for line in (clean(line, LONGEST_LINE) for line in output.split("\n")) if line]
    return lines[-1] if lines else None


def clean(text, most):
    """Return a text as one line that does nothing to a terminal."""
    line = re.sub(r"\x1b\[[0-9;?]{0,20}[A-Za-z]|\s", " ", text)
    line = "".join(part if forms.known("line of text", part) is not None else "?" for part in line).strip()
    return line if len(line) <= most else line[:most] + "..."


def _words(path):
    text = _read(path)
    return text.rstrip("\0").split("\0") if text else []


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []
