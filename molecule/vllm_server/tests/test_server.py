# SPDX-License-Identifier: GPL-3.0-or-later
"""The server of the scenario: what listens, who may ask, and where its secret is."""

import json
import re

KEY = 'secret-$HOME"of"the-100%\\scenario'
ASK = (
    "curl --silent --output /tmp/answer --write-out '%{http_code}' --header 'Content-Type: application/json' "
    """--data '{"prompt": "the water", "max_tokens": 4, "temperature": 0}' http://127.0.0.1:8000/v1/completions"""
)


def test_the_service_runs_and_starts_at_boot(host):
    service = host.service("vllm")
    assert service.is_running
    assert service.is_enabled


def test_it_listens_on_the_loopback_alone(host):
    assert host.socket("tcp://127.0.0.1:8000").is_listening
    assert not host.socket("tcp://0.0.0.0:8000").is_listening


def test_without_the_key_nobody_is_served(host):
    assert host.run(ASK).stdout == "401"


def test_with_the_key_a_request_is_answered(host):
    model = json.loads(host.check_output(f"curl -sf -H 'Authorization: Bearer {KEY}' http://127.0.0.1:8000/v1/models"))
    body = json.dumps({"model": model["data"][0]["id"], "prompt": "the water", "max_tokens": 4, "temperature": 0})
    answer = host.check_output(
        f"curl -sf -H 'Authorization: Bearer {KEY}' -H 'Content-Type: application/json' "
        f"-d '{body}' http://127.0.0.1:8000/v1/completions"
    )
    assert json.loads(answer)["usage"]["completion_tokens"] == 4
    assert model["data"][0]["id"] == 'modèl "of" $HOME at 100% \\n'


def test_the_key_is_in_roots_file_and_nowhere_else(host):
    file = host.file("/etc/neuronops/vllm.env")
    assert file.mode == 0o600
    assert file.user == "root"
    assert "VLLM_API_KEY=" in file.content_string
    assert KEY not in host.file("/etc/systemd/system/vllm.service").content_string
    assert KEY not in host.check_output("ps -eo args | grep -v grep")
    assert KEY not in host.check_output("journalctl --no-pager")


def test_a_variable_reaches_the_server_as_it_was_written(host):
    pid = host.check_output("systemctl show --property MainPID --value vllm")
    environment = host.file(f"/proc/{pid}/environ").content_string.split("\0")
    assert f"VLLM_API_KEY={KEY}" in environment
    assert 'SCENARIO_QUOTES=a "quoted" $value with 100% `id` \\n and ä' in environment


def test_the_service_is_exposed_no_more_than_it_must_be(host):
    # Which devices it reaches, tests/vm sees on a real kernel.
    said = host.check_output("systemd-analyze security --no-pager vllm.service")
    assert float(re.search(r"Overall exposure level for vllm.service: ([\d.]+)", said)[1]) <= 2.0


def test_the_server_is_no_root(host):
    pid = host.check_output("systemctl show --property MainPID --value vllm")
    assert host.check_output(f"ps -o user= -p {pid}").strip() == "vllm"
