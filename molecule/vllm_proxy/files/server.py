# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of vLLM's server: it asks for its key, streams in parts, and has paths that nobody should reach."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path in ("/health", "/metrics"):
            self.answer(200, b"well\n")
        elif self.headers.get("Authorization") != "Bearer " + sys.argv[1]:
            self.answer(401, b"{}")
        elif self.path == "/v1/models":
            headers = {name: value for name, value in self.headers.items() if name != "Authorization"}
            self.answer(200, json.dumps({"object": "list", "headers": headers}).encode())
        elif b"stream" in asked:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(5):
                part = f"data: {number}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
                time.sleep(1)
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(200, b'{"choices": []}')

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
