# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of a Neuron host for Prometheus: what AWS's neuron-monitor says, and what neuronops.vllm has put there.

    neuron_exporter.py --address 127.0.0.1 --port 9520 --monitor /opt/aws/neuron/bin/neuron-monitor ...

/metrics has both, /vllm the metrics of vLLM's server on the loopback. The names neuroncore_*, neuron_* and their units
are those of AWS's own exporter where it has them. Python 3.8 and prometheus_client of the system.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Reports that are older say nothing of now.
STALE_PERIODS = 4
TIMEOUT = 5.0
ECC = ("mem_ecc_corrected", "mem_ecc_uncorrected", "sram_ecc_corrected", "sram_ecc_uncorrected")


def number(value) -> float:
    """Return a number of a report, which a newer neuron-monitor may write as something else."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def part(found, *names) -> dict:
    """Return what a report has below these names, or nothing."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


class Monitor:
    """neuron-monitor as a child, its newest report, and the counts of all reports together."""

    def __init__(self, program: str, period: int, folder: Path) -> None:
        self.program, self.period = program, period
        self.configuration = folder / "neuron-monitor.json"
        self.lock = threading.Lock()
        self.report: dict = {}
        self.at = 0.0
        # A report counts what happened since the one before it; Prometheus wants what happened in all.
        self.executions: dict = defaultdict(float)
        self.errors: dict = defaultdict(float)

    def settings(self) -> dict:
        metrics = ("neuroncore_counters", "memory_used", "execution_stats")
        return {
            "period": f"{self.period}s",
            "neuron_runtimes": [{"tag_filter": ".*", "metrics": [{"type": name} for name in metrics]}],
            "system_metrics": [{"type": "neuron_hw_counters"}],
        }

    def take(self, line: str) -> None:
        """Take a line of neuron-monitor's output; one that is no report is left out."""
        try:
            report = json.loads(line)
        except ValueError:
            return
        if not isinstance(report, dict):
            return
        with self.lock:
            self.report, self.at = report, time.monotonic()
            for runtime in self.runtimes():
                stats = part(runtime, "report", "execution_stats")
                for status, count in part(stats, "execution_summary").items():
                    self.executions[status] += number(count)
                for kind, count in part(stats, "error_summary").items():
                    self.errors[kind] += number(count)

    def runtimes(self) -> list:
        found = self.report.get("neuron_runtime_data")
        return [runtime for runtime in found if isinstance(runtime, dict)] if isinstance(found, list) else []

    def fresh(self) -> bool:
        return bool(self.at) and time.monotonic() - self.at < STALE_PERIODS * self.period + 5

    def run(self) -> None:
        """Read reports for ever; neuron-monitor is started again when it ends."""
        self.configuration.write_text(json.dumps(self.settings()))
        while True:
            with contextlib.suppress(OSError), subprocess.Popen(
                [self.program, "-c", str(self.configuration)], stdout=subprocess.PIPE, text=True, errors="replace"
            ) as process:
                for line in process.stdout or ():
                    self.take(line)
            time.sleep(self.period)


class Host:
    """What the host has: driver, release, server."""

    def __init__(self, venv: Path, service: str, port: int) -> None:
        self.venv, self.service, self.port = venv, service, port

    def driver(self) -> tuple[str, str]:
        """Return (the version that is loaded, the version that is installed), empty where there is none."""
        loaded = installed = ""
        with contextlib.suppress(OSError):
            loaded = Path("/sys/module/neuron/version").read_text().strip()
        command = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Version}", "aws-neuronx-dkms"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            state, version = [*done.stdout.split(), "", ""][:2]
            installed = version if state == "installed" else ""
        return loaded, installed

    def release(self) -> dict:
        """Return what the active release says of itself."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.venv / "neuronops" / "release.json").read_text())
            return found if isinstance(found, dict) else {}
        return {}

    def answers(self) -> bool:
        """Whether vLLM's server says that it lives."""
        with contextlib.suppress(OSError, urllib.error.URLError):
            url = f"http://127.0.0.1:{self.port}/health"
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                return bool(answer.status == 200)
        return False

    def restarts(self) -> float:
        """Return how often systemd has started the server again."""
        command = ["systemctl", "show", "--property", "NRestarts", "--value", f"{self.service}.service"]
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            return float(done.stdout.strip())
        return 0.0

    def metrics_of_server(self) -> bytes:
        """Return vLLM's own metrics; raises URLError or OSError where it does not answer."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return bytes(answer.read())


def same_driver(loaded: str, installed: str) -> bool:
    """Whether a package is the module that is loaded: 2.21.37.0-1 and 2.21.37.0 are, or one of them is not there."""
    return not loaded or not installed or re.split(r"[-~+]", installed)[0] == re.split(r"[-~+]", loaded)[0]


class Collector:
    def __init__(self, monitor: Monitor, host: Host) -> None:
        self.monitor, self.host = monitor, host

    def collect(self):
        yield from self.of_the_host()
        with self.monitor.lock:
            fresh = self.monitor.fresh()
            yield gauge("neuron_monitor_up", "Whether neuron-monitor has said something of late.", float(fresh))
            yield from self.counters()
            if fresh:
                yield from self.of_the_devices()

    def of_the_host(self):
        loaded, installed = self.host.driver()
        release = self.host.release()
        yield gauge("neuronops_server_up", "Whether vLLM's server says that it lives.", float(self.host.answers()))
        restarts = CounterMetricFamily("neuronops_server_restarts", "How often systemd has started the server again.")
        restarts.add_metric([], self.host.restarts())
        yield restarts
        driver = GaugeMetricFamily("neuronops_driver_info", "The Neuron driver.", labels=["loaded", "installed"])
        driver.add_metric([loaded, installed], 1.0)
        yield driver
        stack = release.get("stack")
        name = stack.get("name") if isinstance(stack, dict) else stack
        active = GaugeMetricFamily("neuronops_release_info", "The active release.", labels=["release", "stack"])
        active.add_metric([str(release.get("id") or ""), str(name or "")], float(bool(release)))
        yield active
        drift = GaugeMetricFamily("neuronops_drift", "Whether the host is not what it was made.", labels=["what"])
        drift.add_metric(["driver"], float(not same_driver(loaded, installed)))
        drift.add_metric(["release"], float(not release))
        yield drift

    def counters(self):
        executions = CounterMetricFamily("neuron_executions", "Executions on the devices.", labels=["status"])
        for status, count in sorted(self.monitor.executions.items()):
            executions.add_metric([status], count)
        yield executions
        errors = CounterMetricFamily("neuron_execution_errors", "Failed executions.", labels=["error_type"])
        for kind, count in sorted(self.monitor.errors.items()):
            errors.add_metric([kind], count)
        yield errors

    def of_the_devices(self):
        used = GaugeMetricFamily("neuroncore_utilization_ratio", "Share of the time in use.", labels=["neuroncore"])
        memory = GaugeMetricFamily(
            "neuron_runtime_memory_used_bytes", "Memory of the Neuron applications.", labels=["memory_location"]
        )
        latency = GaugeMetricFamily(
            "neuron_execution_latency_seconds", "Latency of an execution.", labels=["percentile"]
        )
        total: dict = defaultdict(float)
        for runtime in self.monitor.runtimes():
            report = part(runtime, "report")
            for core, values in part(report, "neuroncore_counters", "neuroncores_in_use").items():
                used.add_metric([core], number(part({"it": values}, "it").get("neuroncore_utilization")) / 100)
            bytes_used = part(report, "memory_used", "neuron_runtime_used_bytes")
            for place in ("host", "neuron_device"):
                total[place] += number(bytes_used.get(place))
            for name, seconds in part(report, "execution_stats", "latency_stats", "total_latency").items():
                latency.add_metric([name.lstrip("p")], number(seconds))
        for place, size in sorted(total.items()):
            memory.add_metric([place], size)
        yield from (used, memory, latency)
        system, hardware = part(self.monitor.report, "system_data"), part(self.monitor.report, "neuron_hardware_info")
        ecc = GaugeMetricFamily(
            "neuron_hardware_ecc_events", "ECC events, as the driver has them.", labels=["neuron_device", "event"]
        )
        devices = part(system, "neuron_hw_counters").get("neuron_devices")
        for device in devices if isinstance(devices, list) else []:
            for event in ECC:
                if isinstance(device, dict) and event in device:
                    ecc.add_metric([str(device.get("neuron_device_index")), event], number(device[event]))
        yield ecc
        yield gauge("neuron_devices", "Neuron devices of the host.", number(hardware.get("neuron_device_count")))


def gauge(name: str, text: str, value: float):
    return GaugeMetricFamily(name, text, value=value)


def handler(registry: CollectorRegistry, host: Host):
    """Return the class that answers requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = 404, b"/metrics, or /vllm\n"
            if self.path == "/metrics":
                status, body = 200, generate_latest(registry)
            elif self.path == "/vllm":
                try:
                    status, body = 200, host.metrics_of_server()
                except OSError as error:
                    status, body = 502, f"vLLM does not answer: {error}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Prometheus asks all the time."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9520)
    parser.add_argument("--monitor", default="/opt/aws/neuron/bin/neuron-monitor")
    parser.add_argument("--period", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/run/neuron-exporter"))
    parser.add_argument("--venv", type=Path, default=Path("/opt/aws_neuron_venv_pytorch"))
    parser.add_argument("--service", default="vllm")
    parser.add_argument("--server-port", type=int, default=8000)
    given = parser.parse_args()
    # A proxy of the environment is not in between.
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))
    monitor = Monitor(given.monitor, given.period, given.folder)
    host = Host(given.venv, given.service, given.server_port)
    threading.Thread(target=monitor.run, daemon=True).start()
    registry = CollectorRegistry()
    registry.register(Collector(monitor, host))
    ThreadingHTTPServer.address_family = 10 if ":" in given.address else 2  # AF_INET6, AF_INET of Linux
    ThreadingHTTPServer((given.address, given.port), handler(registry, host)).serve_forever()


if __name__ == "__main__":
    main()
