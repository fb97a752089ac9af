# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client of the proxy gets, and what it does not."""

import json
import time

import pytest

A, B = "Abcdefghij.0123456789", "team-b-has+a/longer=key~"
URL = "https://proxy.example.com:8443"
CURL = "curl --silent --resolve proxy.example.com:8443:127.0.0.1 --cacert /etc/ssl/scenario/server.pem"


def status(host, path, key=None, more=""):
    header = f"-H 'Authorization: Bearer {key}'" if key else ""
    return host.check_output(f"{CURL} {header} {more} -o /root/answer -w '%{{http_code}}' '{URL}{path}'")


def test_the_service_runs_and_starts_at_boot(host):
    service = host.service("vllm-proxy")
    assert service.is_running and service.is_enabled


def test_it_listens_where_it_is_told_and_the_site_of_the_distribution_nowhere(host):
    assert host.socket("tcp://127.0.0.1:8443").is_listening
    listening = host.check_output("ss -Htln")
    assert ":80 " not in listening and "0.0.0.0:8443" not in listening
    assert not host.service("nginx").is_running and not host.service("nginx").is_enabled


@pytest.mark.parametrize("key", [A, B])
def test_each_key_is_served(host, key):
    assert status(host, "/v1/models", key) == "200"
    answer = json.loads(host.file("/root/answer").content_string)
    assert answer["headers"]["X-Forwarded-Proto"] == "https"


@pytest.mark.parametrize("key", [None, "wrong", A.lower(), A[:-1], A + "x", "A" * 400, A.replace(".", "x")])
def test_nobody_else_is(host, key):
    assert status(host, "/v1/models", key) == "401"
    assert json.loads(host.file("/root/answer").content_string)["error"]["code"] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/",
        "/v1",
        "/v1/models/",
        "/V1/models",
        "/tokenize",
        "/invocations",
        "/v1/../metrics",
        "/v1//models/x",
    ],
)
def test_what_is_not_named_is_not_there(host, path):
    assert status(host, path, A, "--path-as-is") == "404"


def test_a_load_balancer_sees_that_the_server_lives(host):
    assert status(host, "/health") == "200"


def test_a_large_request_is_refused(host):
    host.run("head -c 1500000 /dev/zero > /root/large")
    assert status(host, "/v1/completions", A, "--data-binary @/root/large") == "413"
    host.run("head -c 900000 /dev/zero > /root/large")
    assert status(host, "/v1/completions", A, "--data-binary @/root/large") == "200"


def test_an_answer_comes_in_its_parts(host):
    first = f"{CURL} -N -H 'Authorization: Bearer {A}' -d stream {URL}/v1/completions | head -n 1"
    started = time.monotonic()
    assert host.check_output(first) == "data: 0"
    assert time.monotonic() - started < 3  # the whole of it takes five


def test_one_key_has_so_many_requests_at_a_time_and_another_is_not_kept_from_its_own(host):
    ask = f"{CURL} -o /dev/null -w '%{{http_code}} ' -d stream {URL}/v1/completions"
    several = " & ".join([f"{ask} -H 'Authorization: Bearer {A}'"] * 4 + [f"{ask} -H 'Authorization: Bearer {B}'"])
    answered = sorted(host.check_output(f"({several} & wait)").split())
    assert answered == ["200", "200", "200", "429", "429"]


def test_tls_is_of_today(host):
    connect = "openssl s_client -connect 127.0.0.1:8443 -servername proxy.example.com </dev/null 2>&1"
    assert "TLSv1.3" in host.check_output(connect)
    old = host.run(connect.replace("s_client", "s_client -tls1_1 -cipher DEFAULT@SECLEVEL=0"))
    assert old.rc != 0 and "Cipher is (NONE)" in old.stdout
    plain = host.check_output("curl --silent -o /dev/null -w '%{http_code}' http://127.0.0.1:8443/v1/models")
    assert plain == "400"


def test_keys_are_in_roots_file_and_names_in_the_log(host):
    file = host.file("/etc/vllm-proxy/nginx.conf")
    assert (file.mode, file.user) == (0o600, "root") and A.replace(".", "\\.") in file.content_string
    log = host.check_output("journalctl --no-pager --identifier vllm_proxy")
    assert '"team-a"' in log and '"team-b"' in log
    everything = host.check_output("journalctl --no-pager; ps -eo args | grep -v grep").splitlines()
    # What the scenario itself starts its stand-in with is no secret of the proxy.
    of_the_proxy = "\n".join(line for line in everything if "server.py" not in line)
    assert "vllm-proxy" in of_the_proxy
    for key in (A, B, "the-key-of-the-server-itself"):
        assert key not in of_the_proxy
