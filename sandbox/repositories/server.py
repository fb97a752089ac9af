#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve the stand-ins for AWS's apt and Python repositories and for GitHub, over HTTPS.

It runs by itself in a container, so it needs nothing but Python 3.9 and git. The folder ROOT holds one folder for each
host name; `.control/faults.json` in it says which faults are on (see faults.py) and is read at each request. A client
that has a file of its own there, by its address, meets the faults in that one instead.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.server
import json
import mimetypes
import os
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from http import HTTPStatus
from pathlib import Path
from typing import Any

APT = "apt.repos.neuron.amazonaws.com"
PIP = "pip.repos.neuron.amazonaws.com"
GIT = "github.com"
FAULT_OF_HOST = {APT: "apt", PIP: "pip", GIT: "git"}
KEY = "/GPG-PUB-KEY-AMAZON-AWS-NEURON.PUB"
# Headers of the running kernel and the hostile index belong to the sandbox, so no fault of AWS's hosts touches them.
NEVER_FAULTY = re.compile(r"/sandbox/|/hostile/")
GIT_SERVICE = re.compile(r"/(?P<repository>[\w.-]+/[\w.-]+?)(?:\.git)?/(?P<service>info/refs|git-upload-pack)")
GIT_ARCHIVE = re.compile(r"/(?P<repository>[\w.-]+/(?P<name>[\w.-]+))/archive/(?:refs/tags/)?(?P<ref>[\w.-]+)\.tar\.gz")
# The URL of the index that has everything else, for the hostile one to pass on to.
PUBLIC_INDEX = Path(".public-index") / "url"
BLOCK = 1 << 16
# How long a host that stalls holds a client that does not go away by itself.
STALL_SECONDS = 3600


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "neuronops-sandbox"
    sys_version = ""
    timeout = 300
    disable_nagle_algorithm = True
    server: Server

    # Every request, whatever its method, goes through answer().
    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        start = time.monotonic()
        self.status, self.sent = 0, 0
        # A client that takes this server for its proxy sends the whole URL.
        url = urllib.parse.urlsplit(
            self.path if self.path.startswith("http://") else f"//{self.headers.get('Host', '')}{self.path}"
        )
        host, path, self.query = (url.hostname or "").lower(), urllib.parse.unquote(url.path), url.query
        try:
            self.route(host, path, self.server.faults(self.client_address[0]))
        except (ConnectionError, ssl.SSLError, TimeoutError):
            self.close_connection = True
        finally:
            self.server.log(
                client=self.client_address[0],
                method=self.command,
                host=host,
                path=self.path,
                status=self.status,
                bytes=self.sent,
                seconds=round(time.monotonic() - start, 3),
                range=self.headers.get("Range"),
                agent=self.headers.get("User-Agent"),
            )

    def route(self, host: str, path: str, faults: dict[str, str]) -> None:
        if host not in FAULT_OF_HOST:
            self.refuse(HTTPStatus.MISDIRECTED_REQUEST, f"This server stands in for {', '.join(FAULT_OF_HOST)} only.")
            return
        if NEVER_FAULTY.match(path):
            faults = {}
        time.sleep(float(faults.get("slow", 0)))
        state = faults.get(FAULT_OF_HOST[host])
        if state == "closed":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif state == "stalled":
            self.stall()
        elif state == "down":
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The sandbox was told that this repository is down.")
        elif host == GIT and not path.endswith(".gpg"):
            self.git(path, faults)
        elif self.command == "POST":
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are served here.")
        else:
            self.file(host, path, faults)

    def stall(self) -> None:
        """Begin an answer and send no more of it, until the client has had enough."""
        self.close_connection = True
        self.head(HTTPStatus.OK, {"Content-Type": "text/html"}, BLOCK)
        self.body(b"<")
        self.connection.settimeout(STALL_SECONDS)
        while self.connection.recv(BLOCK):
            pass

    def refuse(self, status: HTTPStatus, why: str) -> None:
        # What came with the request is not read, so the connection cannot be used again.
        self.close_connection = self.close_connection or self.command == "POST"
        self.head(status, {"Content-Type": "text/plain; charset=utf-8"}, len(why) + 1)
        self.body(f"{why}\n".encode())

    def head(self, status: HTTPStatus, headers: dict[str, str], length: int | None) -> None:
        self.status = int(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def body(self, content: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(content)
            self.sent += len(content)

    # Files

    def file(self, host: str, path: str, faults: dict[str, str]) -> None:
        root = self.server.root / host
        found = self.substitute(root, path, faults)
        if found.is_dir() and not path.endswith("/"):
            self.head(HTTPStatus.MOVED_PERMANENTLY, {"Location": f"{urllib.parse.quote(path)}/"}, 0)
            return
        if found.is_dir():
            found /= "index.html"
        hidden = any(part.startswith(".") for part in path.split("/"))
        if hidden or not found.is_file() or root.resolve() not in found.resolve().parents:
            project = re.fullmatch(r"/hostile/simple/([\w.-]+)/", path)
            public = self.server.root / PUBLIC_INDEX
            if project and public.exists():
                self.head(HTTPStatus.FOUND, {"Location": f"{public.read_text().rstrip('/')}/{project[1]}/"}, 0)
            else:
                self.refuse(HTTPStatus.NOT_FOUND, f"{host} has no {path}")
            return
        damage = faults.get("wheel") if found.suffix == ".whl" else None
        self.send_file(found, damage)

    def substitute(self, root: Path, path: str, faults: dict[str, str]) -> Path:
        """The file that a fault puts in the place of the one asked for."""
        if path == KEY and "key" in faults:
            return root / "keys" / f"{faults['key']}.asc"
        if re.fullmatch(r"/dists/[\w-]+/(InRelease|Release\.gpg)", path) and "signature" in faults:
            path = f"{path}.{faults['signature']}"
        return root / path.lstrip("/")

    def send_file(self, path: Path, damage: str | None) -> None:
        content = path.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {
            "Content-Type": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            "ETag": tag,
            "Accept-Ranges": "bytes",
            # A rebuilt stand-in keeps its name and version: clients must ask whether what they keep is still right.
            "Cache-Control": "no-cache",
        }
        if self.headers.get("If-None-Match") == tag:
            self.head(HTTPStatus.NOT_MODIFIED, headers, None)
            return
        status, first, last = HTTPStatus.OK, 0, len(content) - 1
        wanted = self.wanted_range(len(content))
        if wanted:
            status, (first, last) = HTTPStatus.PARTIAL_CONTENT, wanted
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            if first > last:
                unsatisfiable = {"Content-Range": f"bytes */{len(content)}"}
                self.head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, unsatisfiable, 0)
                return
        content = content[first : last + 1]
        self.close_connection = self.close_connection or damage == "truncated"
        self.head(status, headers, len(content))
        if damage == "truncated":
            content = content[: len(content) // 2]
        elif damage == "corrupt":
            content = bytes(byte ^ 1 for byte in content)
        self.body(content)

    def wanted_range(self, size: int) -> tuple[int, int] | None:
        """First and last byte of a request for one range; None for the whole file. An empty one cannot be had."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not match or match.group(1) == match.group(2) == "":
            return None
        if not match.group(1):
            return max(0, size - int(match.group(2))), size - 1
        return int(match.group(1)), min(int(match.group(2) or size - 1), size - 1)

    # Git

    def git(self, path: str, faults: dict[str, str]) -> None:
        service, archive = GIT_SERVICE.fullmatch(path), GIT_ARCHIVE.fullmatch(path)
        match = service or archive
        moved = "-moved" if faults.get("tag") == "moved" else ""
        repository = self.server.root / GIT / f"{match['repository']}{moved}.git" if match else None
        if not match or repository is None or not repository.is_dir():
            self.refuse(HTTPStatus.NOT_FOUND, f"{GIT} has no {path} here.")
        elif archive:
            name, ref = archive["name"], archive["ref"]
            prefix = f"{name}-{ref[1:] if re.match(r'v[0-9]', ref) else ref}/"
            command = ["git", "-C", str(repository), "archive", f"--prefix={prefix}", "--format=tar.gz", ref]
            done = subprocess.run(command, capture_output=True, check=False, env=git_environment())
            if done.returncode:
                self.refuse(HTTPStatus.NOT_FOUND, f"{GIT} has no {path} here.")
            else:
                self.head(HTTPStatus.OK, {"Content-Type": "application/x-gzip"}, len(done.stdout))
                self.body(done.stdout)
        else:
            self.smart_http(f"/{repository.name}/{match['service']}", repository.parent)

    def smart_http(self, path: str, folder: Path) -> None:
        """Let git's own CGI program answer."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        content = self.request_body()
        environment = {
            **git_environment(),
            "GIT_PROJECT_ROOT": str(folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": self.query,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(content)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        with subprocess.Popen(
            ["git", "http-backend"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            output: Any = process.stdout
            threading.Thread(target=feed, args=(process.stdin, content), daemon=True).start()
            status, headers = cgi_headers(output)
            # The length is not known before the end, and a pack can be large.
            self.head(status, {**headers, "Transfer-Encoding": "chunked"}, None)
            try:
                while block := output.read1(BLOCK):
                    self.body(b"%x\r\n%s\r\n" % (len(block), block))
                self.body(b"0\r\n\r\n")
            finally:
                process.kill()

    def request_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return content

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: answer() writes one line for each request."""


def git_environment() -> dict[str, str]:
    """Git without the user's settings, for a repository that may belong to somebody else."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }


def feed(pipe: Any, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(content)


def cgi_headers(stream: Any) -> tuple[HTTPStatus, dict[str, str]]:
    status, headers = HTTPStatus.OK, {}
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "status":
            status = HTTPStatus(int(value.split()[0]))
        else:
            headers[name] = value.strip()
    return status, headers


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        root: Path,
        log: Path | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.root, self.tls = root, tls
        self.log_lock = threading.Lock()
        self.log_file = log.open("a", encoding="utf-8", buffering=1) if log else sys.stdout
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without looking up the machine's name, which can take long where there is no DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # of IPv4

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.tls:
            # The handshake happens in the request's own thread, so that a slow client keeps nobody waiting.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls:
            request.settimeout(30)
            request.do_handshake()
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, ssl.SSLError, TimeoutError)):
            super().handle_error(request, client_address)

    def faults(self, client: str) -> dict[str, str]:
        for name in (client, "faults"):
            with contextlib.suppress(FileNotFoundError):
                text = (self.root / ".control" / f"{name}.json").read_text(encoding="utf-8")
                found: dict[str, str] = json.loads(text)
                return found
        return {}

    def log(self, **fields: object) -> None:
        line = json.dumps({"time": round(time.time(), 3), **fields})
        with self.log_lock:
            print(line, file=self.log_file, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="folder with one folder for each host name")
    every = "0.0.0.0"  # noqa: S104 - of the container that it runs in
    parser.add_argument("--address", default=every, help="address to listen on (default: all of the container's)")
    parser.add_argument("--port", type=int, default=443, help="port (default 443; 0 takes a free one)")
    parser.add_argument("--certificate", type=Path, help="certificate in PEM; without it the server speaks plain HTTP")
    parser.add_argument("--key", type=Path, help="the certificate's private key in PEM")
    parser.add_argument(
        "--log", type=Path, help="file for one line of JSON for each request (default: standard output)"
    )
    options = parser.parse_args()
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    with Server((options.address, options.port), options.root, options.log, tls) as server:
        print(f"serving {options.root} on {options.address}:{server.server_address[1]}", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
