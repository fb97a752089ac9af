# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's parts that need no Docker: what it refuses and how, and what it makes."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sandbox import certificates, demo, ec2, engine, fleet, hardware, hosts, image, network
from sandbox.settings import SandboxError, Settings

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("NEURONOPS_CACHE", str(tmp_path))
    monkeypatch.setenv("NEURONOPS_SANDBOX_NAME", "unit")
    monkeypatch.setenv("NEURONOPS_SANDBOX_SUBNET", "10.250.0.0/24")
    made = Settings.from_environment()
    made.prepare()
    return made


class TestSettings:
    @pytest.mark.parametrize("name", ["Upper", "a b", "../up", "-x", "x" * 41])
    def test_a_name_that_docker_or_a_path_cannot_take_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("NEURONOPS_SANDBOX_NAME", name)
        with pytest.raises(SandboxError, match="NEURONOPS_SANDBOX_NAME"):
            Settings.from_environment()

    @pytest.mark.parametrize("subnet", ["nonsense", "10.203.0.1/24", "8.8.8.0/24", "10.0.0.0/8", "10.203.0.0/28"])
    def test_a_subnet_that_cannot_be_a_private_vpc_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, subnet: str
    ) -> None:
        monkeypatch.setenv("NEURONOPS_SANDBOX_SUBNET", subnet)
        with pytest.raises(SandboxError, match="NEURONOPS_SANDBOX_SUBNET"):
            Settings.from_environment()

    def test_what_it_keeps_secret_is_readable_by_its_owner_alone(self, settings: Settings) -> None:
        assert settings.state.stat().st_mode & 0o777 == 0o700


class TestNetwork:
    def test_an_overlap_is_named(self, settings: Settings) -> None:
        wide = ipaddress.IPv4Network("10.0.0.0/8")
        assert network.overlap(settings, {"bridge": [ipaddress.IPv4Network("172.17.0.0/16")]}, {}) is None
        assert network.overlap(settings, {"other": [wide]}, {}) == "the Docker network other (10.0.0.0/8)"
        assert "eth0" in str(network.overlap(settings, {}, {"eth0": wide}))

    def test_its_own_network_is_no_overlap(self, settings: Settings) -> None:
        assert network.overlap(settings, {"unit": [settings.subnet]}, {"br-1": settings.subnet}) is None


class TestEngine:
    @pytest.fixture(autouse=True)
    def no_engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "_complaint", lambda: "there is no docker command")
        monkeypatch.setattr(engine, "install", lambda *_: pytest.fail("it installed something"))
        monkeypatch.delenv("DOCKER_HOST", raising=False)

    def test_without_the_right_to_install_it_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(SandboxError, match=r"needs a Docker engine.*only as root on Debian or Ubuntu"):
            engine.ensure()

    def test_an_engine_elsewhere_is_not_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
        with pytest.raises(SandboxError, match=r"DOCKER_HOST=tcp://192\.0\.2\.1"):
            engine.ensure()

    def test_an_engine_that_one_may_not_use_is_not_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "_complaint", lambda: "permission denied while trying to connect")
        with pytest.raises(SandboxError, match="group `docker`"):
            engine.ensure()


class TestInstalling:
    """engine.install with an apt-get that, as the real one, lets nobody in beside it."""

    @pytest.fixture(autouse=True)
    def apt(self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The folder in which apt-get leaves its lock, `busy`, and says in `calls` what it was asked for."""
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "apt-get").write_text(
            f"""#!/bin/sh
mkdir {tmp_path}/busy 2>/dev/null || {{ echo 'E: Could not get lock /var/lib/apt/lists/lock.' >&2; exit 100; }}
sleep 0.05
echo "$@" >>{tmp_path}/calls
case "$*" in
  *" install missing") rmdir {tmp_path}/busy; echo 'E: Unable to locate package missing' >&2; exit 100 ;;
  *" install "*) for name; do :; done; printf '#!/bin/sh\n' >{programs}/$name; chmod +x {programs}/$name ;;
esac
rmdir {tmp_path}/busy
"""
        )
        (programs / "apt-get").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(engine, "APT_LOCK_SECONDS", 0)
        monkeypatch.setattr(engine, "APT_LOCK_PAUSE", 0.01)
        return tmp_path

    def test_those_who_need_the_same_package_at_once_install_it_once(self, apt: Path) -> None:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: engine.ensure_command("neuronops-tool", "neuronops-tool"), range(3)))
        assert (apt / "calls").read_text().splitlines() == ["-qq update", "-qq -y install neuronops-tool"]

    def test_a_lock_that_another_program_holds_is_waited_for(self, apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "APT_LOCK_SECONDS", 60)
        (apt / "busy").mkdir()
        threading.Timer(0.2, (apt / "busy").rmdir).start()
        engine.install("neuronops-tool")
        assert (apt / "calls").read_text().endswith("install neuronops-tool\n")

    def test_any_other_failure_is_told_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "APT_LOCK_SECONDS", 60)
        with pytest.raises(SandboxError, match="Unable to locate package missing"):
            engine.install("missing")


def test_the_server_is_trusted_by_who_trusts_the_authority_alone(tmp_path: Path) -> None:
    certificates.make(tmp_path, "unit", ["github.com", "apt.repos.neuron.amazonaws.com"])
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
                server.wrap_socket(connection, server_side=True).close()
            except ssl.SSLError:
                continue
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()

    def connect(trusted: Path | None, name: str) -> None:
        context = ssl.create_default_context(cafile=str(trusted) if trusted else None)
        with socket.create_connection(listener.getsockname()) as connection:
            context.wrap_socket(connection, server_hostname=name).close()

    connect(tmp_path / "ca.crt", "github.com")
    connect(tmp_path / "ca.crt", "apt.repos.neuron.amazonaws.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(tmp_path / "ca.crt", "elsewhere.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(None, "github.com")
    listener.close()


def test_a_bundle_is_split_into_its_certificates(tmp_path: Path) -> None:
    certificates.make(tmp_path, "unit", ["github.com"])
    one, two = ((tmp_path / name).read_text() for name in ("ca.crt", "server.crt"))
    assert certificates.split(f"# a comment\n{one}\n{two}") == [one, two]


@pytest.mark.parametrize(
    ("instance_type", "device", "chips"),
    [
        ("inf2.xlarge", "0x7264", 1),
        ("inf2.48xlarge", "0x7264", 12),
        ("trn1.32xlarge", "0x7164", 16),
        ("trn2.3xlarge", "0x7364", 1),
        ("trn2.48xlarge", "0x7364", 16),
        ("m5.large", "", 0),
    ],
)
def test_an_instance_type_has_its_chips(tmp_path: Path, instance_type: str, device: str, chips: int) -> None:
    folder = hardware.write(tmp_path, instance_type)
    found = [(entry / "device").read_text().strip() for entry in folder.iterdir()]
    assert found.count(device) == chips
    assert {(entry / "vendor").read_text() for entry in folder.iterdir()} == {"0x1d0f\n"}
    assert len(found) == chips + 2, "a network card and a disk besides"


class TestImage:
    def test_each_thing_that_goes_in_changes_the_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "setup.sh").write_text("one")
        monkeypatch.setattr(image, "FILES", tmp_path)
        keys = {image.key(system) for system in image.SYSTEMS}
        assert len(keys) == len(image.SYSTEMS)
        (tmp_path / "setup.sh").write_text("two")
        assert image.key("debian12") not in keys

    def test_a_host_gets_what_it_can_reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in image.PASSED_ON:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
        monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:3141/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///srv/wheels")
        passed = image.environment()
        assert passed["PIP_INDEX_URL"] == "https://index.example/simple"
        assert passed["SSL_CERT_FILE"] == image.BUNDLE
        assert not {"UV_INDEX_URL", "PIP_EXTRA_INDEX_URL"} & set(passed)

    def test_the_hosts_trust_what_the_machine_trusts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        certificates.make(tmp_path, "a company's authority", ["x.example"])
        company, other = ((tmp_path / name).read_text() for name in ("ca.crt", "server.crt"))
        (tmp_path / "bundle").write_text(other + company)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle"))
        assert image._machine_certificates(other) == [company]
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
        with pytest.raises(SandboxError, match="SSL_CERT_FILE"):
            image._machine_certificates(other)

    def test_the_login_users_files_are_that_users(self) -> None:
        with tarfile.open(fileobj=BytesIO(image._tar({"home/ubuntu/.ssh/authorized_keys": "k", "etc/x": b"y"}))) as tar:
            members = {member.name: (member.uid, member.mode) for member in tar}
        assert members == {"home/ubuntu/.ssh/authorized_keys": (1000, 0o600), "etc/x": (0, 0o644)}

    def test_an_unknown_system_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SandboxError, match="debian11, debian12, debian13"):
            image.ensure_base("debian9", tmp_path)


class TestEc2:
    def test_a_taken_port_is_named_and_nothing_is_left(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            monkeypatch.setenv("NEURONOPS_SANDBOX_EC2_PORT", str(port))
            with pytest.raises(SandboxError, match=f"127.0.0.1:{port}"):
                ec2.start(settings)
        assert ec2.read(settings) is None

    @pytest.mark.parametrize("port", ["http", "70000", "-1"])
    def test_a_port_that_is_none_is_refused(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, port: str
    ) -> None:
        monkeypatch.setenv("NEURONOPS_SANDBOX_EC2_PORT", port)
        with pytest.raises(SandboxError, match="NEURONOPS_SANDBOX_EC2_PORT"):
            ec2.start(settings)

    def test_another_process_under_its_old_number_is_not_it(self, settings: Settings) -> None:
        ec2.state_file(settings).write_text(f'{{"pid": {os.getpid()}}}')
        assert ec2.read(settings) is None

    @pytest.mark.parametrize(("release", "system"), ec2.UBUNTU.items())
    def test_an_image_of_ubuntu_has_its_stand_in(self, release: str, system: str) -> None:
        assert ec2.system_of(ec2.image_name(release)) == system

    @pytest.mark.parametrize(("release", "system"), [("22.04", "debian12"), ("24.04", "debian13")])
    def test_a_deep_learning_ami_has_that_of_its_ubuntu(self, release: str, system: str) -> None:
        names = [name for parameter, name in ec2.PARAMETERS.items() if f"ubuntu-{release}" in parameter]
        assert {ec2.system_of(name) for name in names} == {system} and len(names) == 2


class TestReconciler:
    """The containers follow the instances."""

    @pytest.fixture
    def done(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
        calls: list[tuple[str, ...]] = []
        monkeypatch.setattr(ec2, "docker", lambda *arguments, **_: calls.append(arguments[:1] + arguments[-1:]))
        monkeypatch.setattr(
            ec2.Reconciler, "launch", lambda self, instance: calls.append(("launch", instance["InstanceId"]))
        )
        monkeypatch.setattr(ec2.Reconciler, "made", lambda self: {})
        return calls

    @pytest.mark.parametrize(
        ("instance", "container", "follows"),
        [
            ("running", None, [("launch", "i-1")]),
            ("running", "running", []),
            ("running", "exited", [("start", "unit-host")]),
            ("stopped", "running", [("stop", "unit-host")]),
            ("stopped", "exited", []),
            ("terminated", "running", [("rm", "unit-host")]),
            (None, "running", [("rm", "unit-host")]),
            ("terminated", None, []),
        ],
    )
    def test_step(
        self,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        done: list[tuple[str, ...]],
        instance: str | None,
        container: str | None,
        follows: list[tuple[str, ...]],
    ) -> None:
        instances = {"i-1": {"InstanceId": "i-1", "State": {"Name": instance}}} if instance else {}
        entry = {"neuronops.instance": "i-1", "name": "unit-host", "state": container}
        monkeypatch.setattr(hosts, "listing", lambda _: [entry] if container else [{"name": "unit-repositories"}])
        reconciler = ec2.Reconciler(settings, None, "subnet-1")
        monkeypatch.setattr(reconciler, "instances", lambda: instances)
        reconciler.step()
        assert done == follows

    def test_an_image_of_an_instance_has_its_files(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, done: list[tuple[str, ...]]
    ) -> None:
        entry = {"neuronops.instance": "i-1", "name": "unit-host", "state": "running"}
        monkeypatch.setattr(hosts, "listing", lambda _: [entry])
        reconciler = ec2.Reconciler(settings, None, "subnet-1")
        monkeypatch.setattr(
            reconciler, "instances", lambda: {"i-1": {"InstanceId": "i-1", "State": {"Name": "running"}}}
        )
        monkeypatch.setattr(reconciler, "made", lambda: {"ami-1": "i-1", "ami-2": "", "ami-3": "i-gone"})
        reconciler.step()
        reconciler.step()
        assert done == [("commit", f"{settings.image}:ami-1")]
        assert reconciler.images == {"ami-1": f"{settings.image}:ami-1"}

    def test_a_host_that_does_not_start_is_tried_once(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        instance = {"InstanceId": "i-1", "PrivateIpAddress": "10.250.0.4", "State": {"Name": "running"}}
        monkeypatch.setattr(ec2.Reconciler, "made", lambda self: {})
        reconciler = ec2.Reconciler(settings, None, "subnet-1")
        monkeypatch.setattr(reconciler, "instances", lambda: {"i-1": instance})
        monkeypatch.setattr(hosts, "listing", lambda _: [])
        reconciler.step()
        reconciler.step()
        assert capsys.readouterr().out.count("i-1: could not be started") == 1


class TestHosts:
    def test_one_that_is_removed_while_they_are_listed_is_no_failure(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stays = {
            "Config": {"Labels": {}},
            "Name": "/stays",
            "NetworkSettings": {"Networks": {}},
            "State": {"Status": "running"},
        }
        present = iter(["stays goes", "stays"])

        def docker(command: str, *arguments: str) -> str:
            if command == "ps":
                return next(present)
            if "goes" in arguments:
                raise SandboxError("docker inspect goes failed: Error: No such object: goes")
            return json.dumps([stays])

        monkeypatch.setattr(hosts, "docker", docker)
        assert [entry["name"] for entry in hosts.listing(settings)] == ["stays"]

    def test_a_listing_that_fails_for_another_reason_says_it(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def docker(command: str, *_arguments: str) -> str:
            if command == "ps":
                return "one"
            raise SandboxError("docker inspect one failed: Cannot connect to the Docker daemon")

        monkeypatch.setattr(hosts, "docker", docker)
        with pytest.raises(SandboxError, match="Cannot connect"):
            hosts.listing(settings)


class TestDemo:
    def test_an_unknown_stack_is_refused_before_anything_starts(self, settings: Settings) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "sandbox.demo"],
            cwd=CHECKOUT,
            env={**os.environ, "NEURON_STACK": "vllm-9.9.9"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1
        assert "vllm-9.9.9" in done.stderr and "vllm-0.9.2" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(settings.state.iterdir())

    def test_the_recap_is_read_to_the_number(self) -> None:
        output = [
            "ok: [changed=3]",
            "PLAY RECAP *****",
            "i-0a : ok=36   changed=7    unreachable=0    failed=1    skipped=8",
            "localhost                  : ok=2    changed=0    unreachable=0    failed=0",
        ]
        found = fleet.recap(output)
        assert {host: counts["changed"] for host, counts in found.items()} == {"i-0a": 7, "localhost": 0}
        assert fleet.recap(output[:1]) == {}

    def test_hosts_have_a_python_that_the_stack_knows(self, settings: Settings) -> None:
        made: Any = object.__new__(demo.Demo)
        made.stack = {"pythons": ["3.8", "3.9", "3.10"]}
        assert made.system == "debian11"
        made.stack = {"pythons": ["3.9", "3.10", "3.11"]}
        assert made.system == "debian12"


def test_a_host_that_is_being_removed_already_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there, asked = ["one", "two"], []

    def docker(*arguments: str, **_: object) -> str:
        asked.append(arguments)
        if len(asked) == 1:
            there.remove("one")
            raise SandboxError("docker rm failed: removal of container one is already in progress")
        there.clear()
        return ""

    monkeypatch.setattr(hosts, "docker", docker)
    hosts._remove(lambda: list(there))
    assert [arguments[3:] for arguments in asked] == [("one", "two"), ("two",)] and there == []

    def broken(*_: str, **__: object) -> str:
        raise SandboxError("docker rm failed: no space left on device")

    monkeypatch.setattr(hosts, "docker", broken)
    with pytest.raises(SandboxError, match="no space left"):
        hosts._remove(lambda: ["three"])
