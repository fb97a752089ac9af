# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in EC2: moto answers the API on the loopback, and each running instance becomes a container at its address.

The containers reach it too, at the sandbox's own network, as instances reach AWS. `start()` runs `python -m
sandbox.ec2` in a session of its own; that process is the API and the one that keeps the containers equal to the
instances: running, stopped, terminated.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sandbox import hosts, image
from sandbox.engine import docker
from sandbox.settings import SandboxError, Settings

REGION = "us-east-1"
ZONE = "us-east-1a"
KEY_NAME = "neuronops-sandbox"
# The owner of Ubuntu's images on AWS, whose names the stand-in images carry.
CANONICAL = "099720109477"
# Ubuntu's release -> the Debian that stands in for it: a Python and a glibc of about the same age.
UBUNTU = {"focal-20.04": "debian11", "jammy-22.04": "debian12", "noble-24.04": "debian13"}
# AWS's Deep Learning AMIs: the owner, and the SSM parameter -> the name of the image that it leads to.
DEEP_LEARNING = "898082745236"
PARAMETERS = {
    f"/aws/service/neuron/dlami/{kind}/ubuntu-{release}/latest/image_id": f"{title} (Ubuntu {release}) 20260101"
    for kind, title in (("base", "Deep Learning Base Neuron AMI"), ("multi-framework", "Deep Learning AMI Neuron"))
    for release in ("22.04", "24.04")
}
INTERVAL_SECONDS = 0.5
START_SECONDS = 60


def image_name(release: str) -> str:
    # Canonical keeps 24.04 and newer under another folder.
    folder = "hvm-ssd-gp3" if release.startswith("noble") else "hvm-ssd"
    return f"ubuntu/images/{folder}/ubuntu-{release}-amd64-server-20260101"


def system_of(name: str) -> str:
    """The system that stands in for an image, by the image's name."""
    release = re.search(r"[-( ](\d\d\.\d\d)[-)]", name)
    found = (system for named, system in UBUNTU.items() if release and named.endswith(f"-{release[1]}"))
    return next(found, image.DEFAULT_SYSTEM)


def _images() -> list[dict[str, Any]]:
    names = [(image_name(release), CANONICAL) for release in UBUNTU]
    names += [(name, DEEP_LEARNING) for name in PARAMETERS.values()]
    return [
        {
            "ami_id": f"ami-0{number:016x}",
            "name": name,
            "description": f"{system_of(name)} of the sandbox, standing in for {name}",
            "owner_id": owner,
            "public": True,
            "state": "available",
            "creation_date": "2026-01-01T00:00:00.000Z",
            "architecture": "x86_64",
            "virtualization_type": "hvm",
            "hypervisor": "xen",
            "root_device_type": "ebs",
            "root_device_name": "/dev/sda1",
            "sriov": "simple",
            "image_type": "machine",
            "image_location": f"sandbox/{number}",
        }
        for number, (name, owner) in enumerate(names, start=1)
    ]


def _publish() -> None:
    """Have the parameters that AWS publishes. Names that begin so are AWS's own, and its API takes them from nobody."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.ssm.models import Parameter, ssm_backends

    parameters = ssm_backends[DEFAULT_ACCOUNT_ID][REGION]._parameters
    identities = {entry["name"]: entry["ami_id"] for entry in _images()}
    for name, title in PARAMETERS.items():
        parameters[name].append(
            Parameter(
                account_id=DEFAULT_ACCOUNT_ID,
                name=name,
                value=identities[title],
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=time.time(),
                version=1,
                data_type="text",
            )
        )


def _take_tags_of_snapshots() -> None:
    """Let CreateImage have tags for the snapshots too, which moto refuses; nothing here asks for those."""
    from moto.ec2.models.amis import AmiBackend

    create = AmiBackend.create_image

    def create_image(
        self: Any, instance_id: str, name: str, description: str, tag_specifications: list[dict[str, Any]]
    ) -> Any:
        kept = [entry for entry in tag_specifications if entry["ResourceType"] != "snapshot"]
        return create(self, instance_id, name, description, kept)

    AmiBackend.create_image = create_image


def credentials() -> dict[str, str]:
    """What a client of the stand-in sends; moto accepts anything."""
    return {"AWS_ACCESS_KEY_ID": "sandbox", "AWS_SECRET_ACCESS_KEY": "sandbox", "AWS_REGION": REGION}


def client(endpoint: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "ec2",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",  # noqa: S106 - moto accepts anything
        config=Config(proxies={}, retries={"max_attempts": 2}),
    )


def state_file(settings: Settings) -> Path:
    return settings.state / "ec2.json"


def read(settings: Settings) -> dict[str, Any] | None:
    """Return what the running stand-in says about itself (pid, endpoint, subnet_id, ...), or None when none runs."""
    try:
        state: dict[str, Any] = json.loads(state_file(settings).read_text())
        command = Path(f"/proc/{state['pid']}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return state if b"sandbox.ec2" in command else None


def start(settings: Settings) -> dict[str, Any]:
    """Start the stand-in, or find it running, and return what read() returns."""
    running = read(settings)
    if running:
        return running
    state_file(settings).unlink(missing_ok=True)
    port = os.environ.get("NEURONOPS_SANDBOX_EC2_PORT") or "0"
    if not port.isdecimal() or int(port) > 65535:
        raise SandboxError(
            f"NEURONOPS_SANDBOX_EC2_PORT is {port!r}: use a port number, or leave it out for a free one."
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OSError as error:
            raise SandboxError(
                f"The stand-in for EC2 cannot listen on 127.0.0.1:{port}: {error.strerror}. Stop what uses the port, "
                "set NEURONOPS_SANDBOX_EC2_PORT to another one, or leave it out for a free one."
            ) from None
    log = settings.state / "ec2.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.ec2", port],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        state = read(settings)
        if state and _answers(state["endpoint"]):
            return state
        time.sleep(0.2)
    stop(settings)
    if process.poll() is None:
        process.terminate()
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    raise SandboxError(f"The stand-in for EC2 did not start. Its log is {log}:\n{tail}")


def _answers(endpoint: str) -> bool:
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return bool(opener.open(f"{endpoint}/moto-api/data.json", timeout=5).status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stop(settings: Settings) -> None:
    """End the stand-in's process; hosts.remove() removes the containers."""
    state = read(settings)
    if state:
        os.kill(state["pid"], signal.SIGTERM)
        for _ in range(100):
            if read(settings) is None:
                break
            time.sleep(0.1)
        else:
            os.kill(state["pid"], signal.SIGKILL)
    state_file(settings).unlink(missing_ok=True)


def _seed(ec2: Any, settings: Settings) -> dict[str, str]:
    """Have what an account has before the first launch: a VPC with a subnet, and the person's key pair."""
    tags = [{"Key": "Name", "Value": settings.name}]
    vpc = ec2.create_vpc(CidrBlock=str(settings.subnet))["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=str(settings.subnet), AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
    ec2.create_tags(Resources=[vpc, subnet], Tags=tags)
    ec2.import_key_pair(KeyName=KEY_NAME, PublicKeyMaterial=(settings.state / "id_ed25519.pub").read_bytes())
    return {"vpc_id": vpc, "subnet_id": subnet, "key_name": KEY_NAME}


class Reconciler:
    """Keeps the sandbox's containers equal to the instances in its subnet."""

    def __init__(self, settings: Settings, ec2: Any, subnet_id: str) -> None:
        self.settings = settings
        self.ec2 = ec2
        self.subnet_id = subnet_id
        # Tried once: a host that does not start is reported and left alone, not started for ever.
        self.failed: set[str] = set()
        self.images: dict[str, str] = {}  # those that were made of an instance, with what has its files

    def instances(self) -> dict[str, dict[str, Any]]:
        pages = self.ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "subnet-id", "Values": [self.subnet_id]}]
        )
        return {
            instance["InstanceId"]: instance
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        }

    def step(self) -> None:
        """One comparison, and what follows from it. Removals first: EC2 gives out a freed address again."""
        wanted = self.instances()
        there = {
            entry["neuronops.instance"]: entry
            for entry in hosts.listing(self.settings)
            if "neuronops.instance" in entry
        }
        self.keep_images({identity: entry["name"] for identity, entry in there.items()})
        states = {identity: instance["State"]["Name"] for identity, instance in wanted.items()}
        for identity, entry in there.items():
            state = states.get(identity, "terminated")
            if state in ("terminated", "shutting-down"):
                print(f"{identity}: terminated", flush=True)
                docker("rm", "--force", "--volumes", entry["name"])
            elif state == "stopped" and entry["state"] == "running":
                docker("stop", "--time", "20", entry["name"])
            elif state == "running" and entry["state"] == "exited":
                docker("start", entry["name"])
        new = [
            wanted[identity]
            for identity, state in states.items()
            if state in ("pending", "running") and identity not in there and identity not in self.failed
        ]
        if new:
            with ThreadPoolExecutor(max_workers=4) as pool:
                list(pool.map(self.launch, new))

    def made(self) -> dict[str, str]:
        """The images of the account's own, with the instances that they were made of, as their tags say."""
        found = {}
        for each in self.ec2.describe_images(Owners=["self"])["Images"]:
            tags = {tag["Key"]: tag["Value"] for tag in each.get("Tags", [])}
            found[each["ImageId"]] = tags.get("neuronops:instance", "")
        return found

    def keep_images(self, containers: dict[str, str]) -> None:
        """Have the files of an instance as an image when an AMI is made of it."""
        for made, identity in self.made().items():
            if identity in containers and made not in self.images:
                self.images[made] = f"{self.settings.image}:{made}"
                docker("commit", containers[identity], self.images[made])
                print(f"{made}: made of {identity}", flush=True)

    def launch(self, instance: dict[str, Any]) -> None:
        identity, address = instance["InstanceId"], instance["PrivateIpAddress"]
        try:
            name = self.ec2.describe_images(ImageIds=[instance["ImageId"]])["Images"][0]["Name"]
            key = ""
            if instance.get("KeyName"):
                pairs = self.ec2.describe_key_pairs(KeyNames=[instance["KeyName"]], IncludePublicKey=True)
                key = pairs["KeyPairs"][0]["PublicKey"].strip() + "\n"
            host = hosts.Host(
                name=f"ip-{address.replace('.', '-')}",
                address=address,
                instance_type=instance["InstanceType"],
                image=self.images.get(instance["ImageId"]) or image.ensure(self.settings, system_of(name)),
                public_key=key,
                labels={"neuronops.instance": identity},
            )
            hosts.start(self.settings, host)
            print(f"{identity}: {instance['InstanceType']} at {address}", flush=True)
            data = self.ec2.describe_instance_attribute(InstanceId=identity, Attribute="userData")["UserData"]
            if data.get("Value"):
                hosts.run_user_data(self.settings, host, base64.b64decode(data["Value"]))
        except Exception as error:
            self.failed.add(identity)
            print(f"{identity}: could not be started: {error}", flush=True)


def _is_here(address: str) -> bool:
    """Whether this machine has an address."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def serve(settings: Settings, port: int) -> None:
    """Be the stand-in until SIGTERM."""
    images = settings.state / "amis.json"
    images.write_text(json.dumps(_images()))
    # moto reads them when it is imported.
    os.environ["MOTO_AMIS_PATH"] = str(images)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    _publish()
    _take_tags_of_snapshots()

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None:
            """Not one line for each of the reconciler's questions."""

    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", port, application, threaded=True, request_handler=Quiet)
    servers = [server]
    # Without the sandbox's network there are no hosts that could ask.
    if _is_here(settings.gateway):
        servers.append(make_server(settings.gateway, 0, application, threaded=True, request_handler=Quiet))
    for each in servers:
        threading.Thread(target=each.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    ec2 = client(endpoint)
    state: dict[str, Any] = {
        "pid": os.getpid(),
        "endpoint": endpoint,
        "endpoint_of_hosts": f"http://{settings.gateway}:{servers[-1].server_port}" if len(servers) > 1 else "",
        **_seed(ec2, settings),
    }
    partial = state_file(settings).with_suffix(".partial")
    partial.write_text(json.dumps(state, indent=2) + "\n")
    partial.replace(state_file(settings))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    # Ctrl-C in the terminal is for the command in the foreground.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reconciler = Reconciler(settings, ec2, state["subnet_id"])
    while not ended.wait(INTERVAL_SECONDS):
        try:
            reconciler.step()
        except Exception as error:
            print(f"will try again: {error}", flush=True)
            ended.wait(2)
    with contextlib.suppress(Exception):
        for each in servers:
            each.shutdown()


if __name__ == "__main__":
    serve(Settings.from_environment(), int(sys.argv[1]))
