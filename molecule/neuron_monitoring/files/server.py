# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of vLLM's server with what its /metrics has under the names of vLLM 0.13."""

from http.server import BaseHTTPRequestHandler, HTTPServer

METRICS = b"""\
vllm:num_requests_running{model_name="m"} 3.0
vllm:num_requests_waiting{model_name="m"} 1.0
vllm:generation_tokens_total{model_name="m"} 17.0
vllm:time_to_first_token_seconds_bucket{model_name="m",le="+Inf"} 2.0
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = {"/health": b"", "/metrics": METRICS}.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
