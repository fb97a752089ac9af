# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# Stand-ins for a release: one that serves, one that ends at once, one that never listens, one that ends with status 0 after
# a while, and one whose answers to requests for tokens are errors.
set -e
stub() {
  python3 -m venv --without-pip "/opt/stub/$1"
  local folder
  folder=$(echo "/opt/stub/$1"/lib/python3*/site-packages)/vllm/entrypoints/openai
  mkdir -p "$folder" "/opt/stub/$1/neuronops"
  touch "$folder"/{.,..,../..}/__init__.py
  cat > "$folder/api_server.py"
  echo '{"role": "vllm", "packages": {"vllm": "0.9.2+neuron218"}}' > "/opt/stub/$1/neuronops/vllm.json"
}
serve='
import http.server, json, os, sys, threading
a = sys.argv; name, port = a[a.index("--served-model-name") + 1], int(a[a.index("--port") + 1])
class H(http.server.BaseHTTPRequestHandler):
    def say(self, status, body):
        data = json.dumps(body).encode(); self.send_response(status); self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json"); self.end_headers(); self.wfile.write(data)
    def do_GET(self): self.say(200, {})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        self.say(200, {"choices": [{"text": "x"}]}) if asked == name else self.say(404, {"message": f"The model {asked} does not exist."})
'
run='http.server.ThreadingHTTPServer(("127.0.0.1", port), H).serve_forever()'
stub dead <<< 'raise SystemExit("ValueError: no device")'
stub hang <<< 'import time; time.sleep(1e9)'
stub good <<< "$serve$run"
stub other <<< "$serve$run"
stub zero <<< "$serve"$'threading.Timer(5, lambda: os._exit(0)).start()\n'"$run"
stub wrong <<< "$serve"$'name = "another"\n'"$run"
