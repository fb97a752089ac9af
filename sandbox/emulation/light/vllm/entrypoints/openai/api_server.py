# SPDX-License-Identifier: GPL-3.0-or-later
"""An API server that answers as vLLM's does, with a sentence on what answers in the place of a model's text."""

import argparse
import hmac
import http.server
import json
import os
import socket
import time
from pathlib import Path

from vllm.release import STARTS, VERSION

LOADING_SECONDS = 1.0


def arguments():
    parser = argparse.ArgumentParser(description="The light stand-in for vLLM's API server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - vLLM's own default
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key", default=os.environ.get("VLLM_API_KEY"))
    parser.add_argument("--device", choices=["neuron"], required=True)
    for name in ("--tensor-parallel-size", "--max-num-seqs", "--max-model-len", "--block-size"):
        parser.add_argument(name, type=int, default=1)
    return parser.parse_args()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def say(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def may(self):
        """As vLLM's: the key protects what is below /v1."""
        wanted = self.server.options.api_key
        given = self.headers.get("Authorization", "")
        return not wanted or hmac.compare_digest(given.encode(), ("Bearer " + wanted).encode())

    def do_GET(self):
        name = self.server.options.served_model_name or self.server.options.model
        if self.path == "/health":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/version":
            self.say(200, {"version": VERSION})
        elif not self.path.startswith("/v1/"):
            self.say(404, {"detail": "Not Found"})
        elif not self.may():
            self.say(401, {"error": "Unauthorized"})
        elif self.path == "/v1/models":
            self.say(200, {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "vllm"}]})
        else:
            self.say(404, {"detail": "Not Found"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = self.server.options.served_model_name or self.server.options.model
        if not self.may():
            self.say(401, {"error": "Unauthorized"})
            return
        try:
            request = json.loads(body)
        except ValueError:
            self.say(400, {"object": "error", "message": "This is no JSON."})
            return
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            self.say(404, {"detail": "Not Found"})
        elif request.get("model") != name:
            self.say(404, {"object": "error", "message": f"The model {request.get('model')!r} does not exist."})
        else:
            text = f"vLLM {VERSION} with {json.dumps(self.server.versions, sort_keys=True)}"
            choice = {
                "index": 0,
                "text": text,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            self.say(200, {"object": "text_completion", "model": name, "choices": [choice], "usage": usage})

    def log_message(self, format, *values):
        """Say nothing of each request: a client asks twice a second."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


def main():
    options = arguments()
    if not STARTS:
        raise RuntimeError(f"vLLM {VERSION} is broken on purpose: it cannot start.")
    from vllm.worker.neuron_worker import versions

    json.loads(Path(options.model, "config.json").read_text(encoding="utf-8"))
    time.sleep(LOADING_SECONDS)  # where the real one compiles
    if ":" in options.host:
        Server.address_family = socket.AF_INET6
    server = Server((options.host, options.port), Handler)
    server.options, server.versions = options, versions()
    print(f"vLLM {VERSION} serves at {options.host}:{options.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
