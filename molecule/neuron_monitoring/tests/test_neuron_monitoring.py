# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus gets of a host."""

import json
import re
import time
from pathlib import Path

MONITORING = Path(__file__).resolve().parents[3] / "docs" / "monitoring"
CURL = "curl --silent --fail http://127.0.0.1:9520"


def metrics(host, path="/metrics"):
    """Each metric with its labels -> its value."""
    lines = host.check_output(f"{CURL}{path}").splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}


def test_the_service_runs_without_rights_and_starts_at_boot(host):
    service = host.service("neuron-exporter")
    assert service.is_running and service.is_enabled
    assert host.check_output("systemctl show --property User --value neuron-exporter") == "neuron-exporter"
    assert "0.0.0.0:9520" not in host.check_output("ss -Htln") and host.socket("tcp://127.0.0.1:9520").is_listening


def test_the_devices_are_told_as_neuron_monitor_says(host):
    found = metrics(host)
    assert found["neuron_monitor_up"] == 1
    assert found['neuroncore_utilization_ratio{neuroncore="0"}'] == 0.42
    assert found['neuron_runtime_memory_used_bytes{memory_location="neuron_device"}'] == 2048
    assert found['neuron_execution_latency_seconds{percentile="99"}'] == 0.012
    assert found['neuron_hardware_ecc_events{event="mem_ecc_corrected",neuron_device="0"}'] == 5
    assert found["neuron_devices"] == 1


def test_what_a_report_counts_is_counted_together(host):
    name = 'neuron_executions_total{status="completed"}'
    before = metrics(host)[name]
    time.sleep(3)
    after = metrics(host)
    assert 20 <= after[name] - before <= 60
    assert after['neuron_execution_errors_total{error_type="transient"}'] > 0


def test_the_host_is_told(host):
    found = metrics(host)
    assert found["neuronops_server_up"] == 1 and found["neuronops_server_restarts_total"] == 0
    assert found['neuronops_release_info{release="vllm-0.13.0-0123456789ab",stack="vllm-0.13.0"}'] == 1
    assert found['neuronops_drift{what="release"}'] == 0 and found['neuronops_drift{what="driver"}'] == 0


def test_the_server_s_own_metrics_are_passed_on(host):
    assert metrics(host, "/vllm")['vllm:num_requests_running{model_name="m"}'] == 3
    assert host.run(f"{CURL}/other").rc != 0


def test_rules_and_dashboard_ask_for_metrics_that_there_are(host):
    there = {name.partition("{")[0] for name in (*metrics(host), *metrics(host, "/vllm"))} | {"up"}
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"expr: (.*)", (MONITORING / "rules.yml").read_text())
    assert len(asked) > 15
    for expression in asked:
        without_labels = re.sub(r"\{.*?\}", "", expression)
        names = set(re.findall(r"\b(?:neuron|neuronops|neuroncore|vllm:)[a-z_:]*[a-z]|\bup\b", without_labels))
        assert names and names <= there, expression
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
