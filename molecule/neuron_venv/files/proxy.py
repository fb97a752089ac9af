# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy for HTTPS on 127.0.0.1:3128 that writes each host it is asked for to the file of its first argument."""

import contextlib
import socket
import socketserver
import sys
import threading
from pathlib import Path


def forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class Proxy(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        method, target, _version = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass
        if method != "CONNECT":
            self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            return
        with Path(sys.argv[1]).open("a", encoding="utf-8") as log:
            log.write(target + "\n")
        host, _colon, port = target.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=forward, args=(server, self.connection))
            back.start()
            forward(self.connection, server)
            back.join()


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", 3128), Proxy).serve_forever()
