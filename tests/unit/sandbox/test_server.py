# SPDX-License-Identifier: GPL-3.0-or-later
"""The server, asked by real apt, pip, uv and git (through their proxy setting) and by plain requests."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest

from sandbox import certificates
from sandbox.repositories import __main__ as command
from sandbox.repositories import faults, server
from sandbox.settings import SandboxError
from tests.unit.sandbox.conftest import Served

INDEX = f"http://{server.PIP}"
REMOTE = f"http://{server.GIT}/vllm-project/vllm.git"


def ask(
    served: Served, host: str, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(served.proxy).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={"Host": host, **{key.title(): text for key, text in headers.items()}})
        answer = connection.getresponse()
        return answer, answer.read()


def run(served: Served, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env=served.environment | {"HOME": str(cwd or "/nonexistent")},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# Plain requests


def test_each_host_has_its_own_files_and_others_are_refused(served: Served) -> None:
    assert ask(served, server.PIP, "/neuronx-cc/")[0].status == 200
    assert ask(served, server.APT, "/neuronx-cc/")[0].status == 404
    answer, text = ask(served, "example.org", "/")
    assert answer.status == 421
    assert server.PIP.encode() in text


def test_every_answer_says_that_it_is_the_sandbox(served: Served) -> None:
    assert (ask(served, server.PIP, "/")[0].getheader("Server") or "").startswith("neuronops-sandbox")


@pytest.mark.parametrize("path", ["/../../secret", "/%2e%2e/%2e%2e/secret", "/.control/faults.json", "//etc/passwd"])
def test_nothing_but_the_tree_is_served(served: Served, path: str) -> None:
    served.fault(slow="0")  # so that there is a control file
    assert ask(served, server.PIP, path)[0].status == 404
    assert ask(served, server.GIT, f"/..{path}/info/refs?service=git-upload-pack")[0].status == 404


def test_ranges_heads_and_unchanged_files(served: Served) -> None:
    path = f"/pool/{next((served.root / server.APT / 'pool').glob('*dkms*')).name}"
    whole, content = ask(served, server.APT, path)
    assert (whole.status, whole.getheader("Content-Length")) == (200, str(len(content)))
    # Rebuilt stand-ins keep their names: pip's and uv's caches must ask.
    assert whole.getheader("Cache-Control") == "no-cache"
    part, middle = ask(served, server.APT, path, range="bytes=2-5")
    assert (part.status, middle) == (206, content[2:6])
    assert part.getheader("Content-Range") == f"bytes 2-5/{len(content)}"
    assert ask(served, server.APT, path, range="bytes=-4")[1] == content[-4:]
    assert ask(served, server.APT, path, range=f"bytes={len(content)}-")[0].status == 416
    head, nothing = ask(served, server.APT, path, method="HEAD")
    assert (head.getheader("Content-Length"), nothing) == (str(len(content)), b"")
    assert ask(served, server.APT, path, if_none_match="x")[0].status == 200
    unchanged = http.client.HTTPConnection(urllib.parse.urlsplit(served.proxy).netloc)
    with contextlib.closing(unchanged):
        unchanged.request("GET", path, headers={"Host": server.APT, "If-None-Match": whole.getheader("ETag") or ""})
        assert unchanged.getresponse().status == 304


def test_a_folder_without_its_slash_leads_to_the_one_with_it(served: Served) -> None:
    answer, _ = ask(served, server.PIP, "/torch-neuronx")
    assert (answer.status, answer.getheader("Location")) == (301, "/torch-neuronx/")


def test_the_log_has_one_line_for_each_request(served: Served) -> None:
    before = len(served.log)
    ask(served, server.PIP, "/nothing", method="HEAD", user_agent="probe")
    deadline = time.monotonic() + 5
    while len(served.log) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    (line,) = served.log[before:]
    assert (line["host"], line["method"], line["path"], line["status"]) == (server.PIP, "HEAD", "/nothing", 404)


def test_it_speaks_tls_and_a_silent_client_keeps_nobody_waiting(served: Served, tmp_path: Path) -> None:
    certificates.make(tmp_path, "test", [server.PIP])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    with server.Server(("127.0.0.1", 0), served.root, tmp_path / "log", tls) as instance:
        threading.Thread(target=instance.serve_forever, daemon=True).start()
        address = ("127.0.0.1", instance.server_port)
        client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        silent, raw = socket.create_connection(address), socket.create_connection(address, timeout=10)
        with silent, raw, client.wrap_socket(raw, server_hostname=server.PIP) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {server.PIP}\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 200"
        instance.shutdown()


# Real clients


def apt_update(served: Served, folder: Path, key: bytes) -> subprocess.CompletedProcess[str]:
    """Real apt with a root of its own, trusting the key."""
    for name in ("etc/apt/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "key.asc").write_bytes(key)
    (folder / "status").touch()
    source = f"deb [arch=amd64 signed-by={folder}/key.asc] http://{server.APT}/ bookworm main\n"
    (folder / "etc/apt/sources.list").write_text(source)
    options = {
        "Dir::Etc": folder / "etc/apt",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Acquire::http::Proxy": served.proxy,
        "Acquire::Retries": "0",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    done = run(served, "apt-get", "-q", *words, "update")
    if done.returncode:
        return done
    return run(served, "apt-cache", *words, "madison", "aws-neuronx-dkms")


needs_apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="this machine has no apt")


@needs_apt
def test_apt_trusts_the_repository_by_its_key(served: Served, tmp_path: Path) -> None:
    _, key = ask(served, server.APT, server.KEY)
    done = apt_update(served, tmp_path, key)
    assert "2.21.37.0" in done.stdout, done.stderr


@needs_apt
@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({"key": "expired"}, "EXPKEYSIG"),
        ({"signature": "second"}, "NO_PUBKEY"),
        ({"apt": "down"}, "503"),
        ({"apt": "closed"}, "Connection failed"),
    ],
)
def test_apt_meets_the_faults(served: Served, tmp_path: Path, fault: dict[str, str], complaint: str) -> None:
    served.fault(**{name: value for name, value in fault.items() if name == "key"})
    _, key = ask(served, server.APT, server.KEY)
    served.fault(**fault)
    done = apt_update(served, tmp_path, key)
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


def pip(served: Served, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["download", "--isolated", "--no-cache-dir", "--retries=0", "--proxy", served.proxy]
    trusted = ["--trusted-host", server.PIP, "--no-deps", "--dest", str(folder), "--index-url", INDEX]
    return run(served, sys.executable, "-m", "pip", *command, *trusted, *words, cwd=folder)


def uv(served: Served, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["pip", "install", "--no-config", "--no-cache", "--no-deps", "--target", str(folder / "target")]
    place = ["--allow-insecure-host", server.PIP, "--default-index", INDEX]
    return run(served, "uv", *command, "--python", sys.executable, *place, *words, cwd=folder)


def test_pip_and_uv_install_from_the_index(served: Served, tmp_path: Path) -> None:
    done = pip(served, tmp_path, "transformers-neuronx==0.13.798")
    assert [path.name for path in tmp_path.glob("*.whl")] == ["transformers_neuronx-0.13.798-py3-none-any.whl"], (
        done.stderr
    )
    done = uv(served, tmp_path, "transformers-neuronx==0.13.798", "libneuronxla==2.2.3493.0")
    assert (tmp_path / "target/transformers_neuronx/config.py").exists(), done.stderr
    assert (tmp_path / "target/libneuronxla").is_dir()


@pytest.mark.parametrize("damage", ["truncated", "corrupt"])
def test_pip_and_uv_refuse_a_damaged_wheel(served: Served, tmp_path: Path, damage: str) -> None:
    served.fault(wheel=damage)
    for install in (pip, uv):
        assert install(served, tmp_path, "transformers-neuronx==0.13.798").returncode != 0
    assert not list(tmp_path.glob("*.whl"))
    assert not (tmp_path / "target/transformers_neuronx").exists()


def test_a_host_that_stalls_begins_an_answer_and_never_ends_it(served: Served) -> None:
    served.fault(pip="stalled")
    with socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(served.proxy).port or 0), timeout=1) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: {server.PIP}\r\n\r\n".encode())
        said = b""
        with pytest.raises(TimeoutError):
            while block := client.recv(4096):
                said += block
    assert said.startswith(b"HTTP/1.1 200") and said.endswith(b"\r\n\r\n<")


def test_a_fault_can_be_that_of_one_client_alone(served: Served) -> None:
    served.fault(pip="down")
    faults.write(served.root, {}, client="127.0.0.1")
    assert ask(served, server.PIP, "/")[0].status == 200
    faults.write(served.root, {"pip": "down"}, client="127.0.0.1")
    faults.write(served.root, {})
    assert ask(served, server.PIP, "/")[0].status == 503
    (served.root / ".control" / "127.0.0.1.json").unlink()
    assert ask(served, server.PIP, "/")[0].status == 200


@pytest.mark.parametrize("state", ["down", "closed"])
def test_pip_fails_when_the_index_does(served: Served, tmp_path: Path, state: str) -> None:
    served.fault(pip=state)
    assert pip(served, tmp_path, "transformers-neuronx==0.13.798").returncode != 0


def test_the_hostile_index_wins_where_nobody_takes_care(served: Served, tmp_path: Path) -> None:
    pip(served, tmp_path, "--extra-index-url", f"{INDEX}/hostile/simple/", "transformers-neuronx")
    assert [path.name for path in tmp_path.glob("*.whl")] == ["transformers_neuronx-99.0-py3-none-any.whl"]


def test_the_hostile_index_has_all_of_the_public_one(served: Served) -> None:
    answer, _ = ask(served, server.PIP, "/hostile/simple/numpy/")
    assert (answer.status, answer.getheader("Location")) == (302, "http://public.invalid/simple/numpy/")


def git(served: Served, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(served, "git", "-c", "advice.detachedHead=false", *words, cwd=folder)


def test_git_clones_shallow_and_by_commit(served: Served, tmp_path: Path) -> None:
    done = git(served, tmp_path, "clone", "--depth=1", "--branch=v0.9.2", REMOTE, "shallow")
    assert done.returncode == 0, done.stderr
    assert git(served, tmp_path / "shallow", "rev-parse", "HEAD").stdout.strip() == served.commits["0.9.2"]
    assert git(served, tmp_path / "shallow", "describe", "--tags").stdout.strip() == "v0.9.2"
    git(served, tmp_path, "init", "by-commit")
    done = git(served, tmp_path / "by-commit", "fetch", "--depth=1", REMOTE, served.commits["0.3.3"])
    assert done.returncode == 0, done.stderr
    done = git(served, tmp_path, "clone", REMOTE.removesuffix(".git"), "full")
    assert done.returncode == 0, done.stderr
    assert git(served, tmp_path / "full", "tag").stdout.split() == ["v0.3.3", "v0.9.2"]


@pytest.mark.parametrize("how", ["plain", "compressed", "in chunks"])
def test_git_asks_in_each_way_it_can(served: Served, how: str) -> None:
    request = b"0014command=ls-refs\n0000"
    headers = {"Host": server.GIT, "Git-Protocol": "version=2", "Content-Type": "application/x-git-upload-pack-request"}
    if how == "compressed":
        request, headers["Content-Encoding"] = gzip.compress(request), "gzip"
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(served.proxy).netloc, timeout=10)
    with contextlib.closing(connection):
        path = "/vllm-project/vllm.git/git-upload-pack"
        chunks = iter([request[:9], request[9:]])
        body = chunks if how == "in chunks" else request
        connection.request("POST", path, body, headers, encode_chunked=how == "in chunks")
        answer = connection.getresponse()
        assert served.commits["0.9.2"].encode() in answer.read()


def test_git_meets_a_moved_tag_and_a_remote_that_is_down(served: Served, tmp_path: Path) -> None:
    served.fault(tag="moved")
    moved = git(served, tmp_path, "ls-remote", REMOTE, "refs/tags/v0.9.2").stdout.split()[0]
    assert moved != served.commits["0.9.2"]
    done = git(served, tmp_path, "clone", "--depth=1", "--branch=v0.9.2", REMOTE, "moved")
    assert git(served, tmp_path / "moved", "rev-parse", "HEAD").stdout.strip() == moved, done.stderr
    served.fault(git="down")
    assert "503" in git(served, tmp_path, "ls-remote", REMOTE).stderr


def test_a_signed_tag_is_good_with_the_accounts_key(served: Served, tmp_path: Path) -> None:
    _, key = ask(served, server.GIT, "/vllm-project.gpg")
    home = tmp_path / ".gnupg"
    home.mkdir(mode=0o700)
    subprocess.run(["gpg", "--homedir", home, "--quiet", "--import"], input=key, check=True)
    git(served, tmp_path, "clone", "--depth=1", "--branch=v0.9.2", f"http://{server.GIT}/vllm-project/vllm-signed", "s")
    assert git(served, tmp_path / "s", "rev-parse", "HEAD").stdout.strip() == served.commits["0.9.2"]
    verify = ["git", "-c", "gpg.program=gpg", "-C", str(tmp_path / "s"), "verify-tag", "v0.9.2"]
    good = subprocess.run(verify, env=served.environment | {"GNUPGHOME": str(home)}, capture_output=True, check=False)
    assert good.returncode == 0, good.stderr
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


def test_a_repository_that_is_not_there_and_pushing_are_refused(served: Served, tmp_path: Path) -> None:
    assert git(served, tmp_path, "ls-remote", f"http://{server.GIT}/vllm-project/other.git").returncode != 0
    git(served, tmp_path, "clone", "--depth=1", REMOTE, "mine")
    assert git(served, tmp_path / "mine", "push", "origin", "HEAD:refs/heads/new").returncode != 0


def test_archives_of_tags(served: Served, tmp_path: Path) -> None:
    answer, content = ask(served, server.GIT, "/vllm-project/vllm/archive/refs/tags/v0.9.2.tar.gz")
    assert answer.status == 200
    (tmp_path / "a.tar.gz").write_bytes(content)
    names = subprocess.run(["tar", "tzf", tmp_path / "a.tar.gz"], capture_output=True, text=True, check=True).stdout
    assert "vllm-0.9.2/setup.py" in names.split()
    assert ask(served, server.GIT, "/vllm-project/vllm/archive/refs/tags/v9.tar.gz")[0].status == 404


# Faults


def test_faults_leave_the_sandboxs_own_files_alone(served: Served) -> None:
    served.fault(apt="down", pip="down")
    assert ask(served, server.APT, "/dists/bookworm/InRelease")[0].status == 503
    assert ask(served, server.APT, "/sandbox/key.asc")[0].status == 200
    assert ask(served, server.PIP, "/hostile/simple/torch-neuronx/")[0].status == 200


def test_slow_answers_wait(served: Served) -> None:
    served.fault(slow="0.3")
    start = time.monotonic()
    ask(served, server.PIP, "/")
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize("words", [["bogus=1"], ["apt=maybe"], ["slow=fast"], ["slow=-1"], ["apt"]])
def test_unknown_faults_are_refused(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SandboxError, match="choose from"):
        faults.write(tmp_path, faults.parse(words))
    assert not (tmp_path / faults.CONTROL).exists()


def test_faults_are_read_back(tmp_path: Path) -> None:
    assert faults.read(tmp_path) == {}
    faults.write(tmp_path, {"apt": "down"})
    assert faults.read(tmp_path) == {"apt": "down"} == json.loads((tmp_path / ".control/faults.json").read_text())


def test_the_command_breaks_and_mends_the_running_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEURONOPS_CACHE", str(tmp_path))
    monkeypatch.setenv("NEURONOPS_SANDBOX_NAME", "mine")
    root = tmp_path / "sandbox/mine/repositories/www"
    assert command.main(["fault", "apt=down"]) == 1
    assert "python -m sandbox up" in capsys.readouterr().err
    root.mkdir(parents=True)
    assert command.main(["fault", "apt=down", "key=wrong"]) == 0
    assert faults.read(root) == {"apt": "down", "key": "wrong"}
    assert command.main(["fault", "apt=maybe"]) == 1
    assert command.main(["fault"]) == 0
    assert faults.read(root) == {}
