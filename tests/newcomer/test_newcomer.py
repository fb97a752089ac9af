# SPDX-License-Identifier: GPL-3.0-or-later
"""A newcomer: an empty Debian with Python, and nothing typed but what tutorial and README show, to an answered request.

What stands in, besides the sandbox: the artifact of this checkout and amazon.aws of the package `ansible` for what
Galaxy would give, and the light stack, whose vLLM answers and computes nothing. STAND_INS and NOT_TYPED say each.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_collections.amazon.aws
import pytest
import yaml

from sandbox import ec2, hosts, image, lifecycle
from sandbox.engine import docker
from sandbox.fleet import CHECKOUT
from sandbox.settings import Settings
from tests.unit.test_documents import Block, blocks

SYSTEM = "debian13"
HOME = "/home/ubuntu"
AMAZON = Path(next(iter(ansible_collections.amazon.aws.__path__)))
LOG = CHECKOUT / ".build" / "logs" / "newcomer.log"
# What of a block is something else here, and why.
STAND_INS = (
    (r"neuronops\.vllm$", f"--no-deps {HOME}/neuronops-vllm.tar.gz", "Galaxy cannot be reached"),
    (r"subnet-0123456789abcdef0", "{subnet}", "the subnet of the stand-in"),
    (r"^# From outside of the VPC:\n(?:(?!vllm).+\n?)*", "", "the controller is in the network of the hosts"),
    (r"-L 8000:", "-L {port}:", "a port that is free on this machine"),
    (r"http://127\.0\.0\.1:8000/", "http://127.0.0.1:{port}/", "the same port"),
    (r"vllm-0\.16\.0", "light-2", "what the light stack is changed to"),
)
# What begins so is not typed, and why.
NOT_TYPED = {
    "aws service-quotas": "the stand-in for AWS knows no quota of vCPUs",
    "ansible neuron -i aws_ec2.yml --become": "the model's other way to a host, through a bucket; rsync is taken",
    "journalctl": "follows what a host says, without an end",
    "ansible-doc": "run for each of these by tests/unit/test_documents.py",
    "make": "the other parts of the proof, and the demonstration",
    "pip install boto3": "of README; the tutorial's own line is typed",
    "ansible-galaxy collection install git": "fetches from GitHub",
    "ansible-galaxy collection install neuronops-vllm-": "what the stand-in for Galaxy is",
}


@dataclass(frozen=True)
class Step:
    """A block as it is typed."""

    block: Block
    text: str

    def __str__(self) -> str:
        return f"### {self.block}"


def typed(block: Block, values: dict[str, str]) -> str:
    """Return what is typed of a block, with this machine's values."""
    text = block.text
    if block.language == "sh":
        lines = text.splitlines()
        text = "\n".join(line for line in lines if not any(line.startswith(start) for start in NOT_TYPED))
    for pattern, replacement, _ in STAND_INS:
        text = re.sub(pattern, replacement.format(**values), text, flags=re.MULTILINE)
    return text.strip()


class Controller:
    """The newcomer's machine: a container beside the hosts, with the network of this machine, where moto listens."""

    def __init__(self, settings: Settings) -> None:
        self.name = hosts.container_name(settings, "newcomer")
        docker(
            "run", "--detach", "--name", self.name, "--label", f"neuronops.sandbox={settings.name}",
            "--network", "host", "--init", "--entrypoint", "sleep", image.ensure(settings, SYSTEM), "infinity",
        )  # fmt: skip

    def root(self, command: str) -> str:
        """Run a command as root; returns what it printed."""
        return docker("exec", self.name, "bash", "-ec", command)

    def write(self, path: str, text: str) -> None:
        """Write a file of the newcomer."""
        command = f"mkdir -p $(dirname {path}) && cat > {path}"
        docker("exec", "--interactive", "--user", "ubuntu", self.name, "sh", "-c", command, stdin=text.encode())

    def copy(self, source: Path, path: str) -> None:
        """Give the newcomer a file or the content of a folder."""
        self.root(f"mkdir -p {Path(path).parent}")
        docker("cp", f"{source}/." if source.is_dir() else str(source), f"{self.name}:{path}")
        self.root(f"chown -R ubuntu: {HOME}")

    def types(self, name: str, lines: list[str]) -> str:
        """Run lines of a shell as the newcomer, up to the first that fails; returns what was said, and keeps it."""
        self.write(f"{HOME}/{name}", "\n".join(["set -e", f"export HOME={HOME}", "cd", *lines, ""]))
        done = subprocess.run(
            ["docker", "exec", "--user", "ubuntu", self.name, "bash", f"{HOME}/{name}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        with LOG.open("a", encoding="utf-8") as log:
            log.write(done.stdout)
        assert done.returncode == 0, f"{done.stdout[-6000:]}\nAll of it: {LOG}"
        return done.stdout


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONOPS_SANDBOX_NAME", "neuronops-newcomer")
        patch.setenv("NEURONOPS_SANDBOX_SUBNET", "10.252.0.0/24")
        found = Settings.from_environment()
        try:
            lifecycle.up(found, systems=[SYSTEM])
            yield found
        finally:
            lifecycle.down(found)


@pytest.fixture(scope="module")
def values(settings: Settings) -> dict[str, str]:
    """What stands for this machine in the pages' blocks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    state = ec2.read(settings)
    assert state
    return {"subnet": state["subnet_id"], "port": port, "endpoint": state["endpoint"]}


@pytest.fixture(scope="module")
def controller(settings: Settings, values: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """An empty Debian with what a person has before the first page: credentials, the AWS CLI, a model."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    LOG.write_text("", encoding="utf-8")
    artifact = tmp_path_factory.mktemp("artifact") / "made"
    subprocess.run([CHECKOUT / "tests" / "artifact.sh", str(artifact)], check=True, capture_output=True)
    found = Controller(settings)
    found.root("apt-get -qq update; apt-get -qq -y install python3-venv rsync openssh-client > /dev/null")
    found.root("python3 -m venv /opt/aws && /opt/aws/bin/pip -q install awscli==1.46.3")
    found.root("ln -s /opt/aws/bin/aws /usr/local/bin/")
    (packed,) = artifact.glob("neuronops-vllm-*.tar.gz")
    found.copy(packed, f"{HOME}/neuronops-vllm.tar.gz")
    found.copy(AMAZON, f"{HOME}/.ansible/collections/ansible_collections/amazon/aws")
    profile = {
        "region": ec2.REGION,
        "endpoint_url": values["endpoint"],
        "aws_access_key_id": "sandbox",
        "aws_secret_access_key": "sandbox",
    }
    found.write(f"{HOME}/.aws/config", "\n".join(["[profile me]", *(f"{k} = {v}" for k, v in profile.items()), ""]))
    found.root("apt-get -qq clean")
    return found


@pytest.fixture(scope="module")
def fleet_variables(settings: Settings) -> dict[str, Any]:
    """What the stand-ins for the repositories need of every play, and the light stack."""
    found: dict[str, Any] = yaml.safe_load(settings.variables_file.read_text())
    found.update(yaml.safe_load((CHECKOUT / "sandbox" / "light.yml").read_text()))
    of_the_pages = ("vllm_server_model", "vllm_server_max_model_len")
    return {**{name: value for name, value in found.items() if name not in of_the_pages}, "neuron_stack": "light-1"}


def file_of(block: Block) -> str:
    """The file that a block of YAML of the tutorial is the content of, or nothing."""
    return {"launch_groups": "fleet.yml", "ansible_user": "group_vars/neuron.yml"}.get(block.text.partition(":")[0], "")


def said(output: str, step: Step) -> str:
    """What the lines of a step said."""
    return output.partition(f"{step}\n")[2].partition("\n### ")[0]


@pytest.fixture(scope="module")
def story(controller: Controller, values: dict[str, str], fleet_variables: dict[str, Any]) -> tuple[list[Step], str]:
    """The steps of the tutorial, with README's after the first answer, and all that was said; not yet the clean-up."""
    tutorial, readme = blocks(CHECKOUT / "docs" / "tutorial.md"), blocks(CHECKOUT / "README.md")
    steps = [Step(block, typed(block, values)) for block in tutorial if block.language in ("sh", "yaml")]
    of_readme = [Step(block, typed(block, values)) for block in readme if block.language == "sh"]
    ask = next(number for number, step in enumerate(steps) if "/v1/completions" in step.text)
    steps[ask + 1 : ask + 1] = of_readme
    end = next(number for number, step in enumerate(steps) if "neuronops.vllm.terminate" in step.text)
    lines: list[str] = []
    for step in steps[:end]:
        lines += [f"echo; echo '{step}'"]
        if step.block.language == "sh":
            if step.text.startswith("rsync"):
                lines += prepared_for_the_model()
            lines.append(step.text)
            continue
        name = file_of(step.block)
        if not name:  # the other ways to a model
            continue
        more = f"launch_image_name: {ec2.image_name('jammy-22.04')}\n" if name == "fleet.yml" else ""
        lines.append(f"cat > ~/fleet/{name} <<'END'\n{step.text}\n{more}END")
        if name != "fleet.yml":
            lines.append(f"cat > ~/fleet/group_vars/all.yml <<'END'\n{json.dumps(fleet_variables)}\nEND")
    return steps, controller.types("story.sh", lines)


def prepared_for_the_model() -> list[str]:
    """What a reader has: the model, and the rsync that Ubuntu's images bring."""
    install = "sudo apt-get -qq update && sudo apt-get -qq -y install rsync > /dev/null"
    return [f"cp -r {image.MODEL} llama", f"ssh -i ~/.ssh/me.pem ubuntu@$HOST '{install}'"]


def test_the_pages_lead_to_an_answer(story: tuple[list[Step], str]) -> None:
    steps, output = story
    (ask,) = (step for step in steps if "/v1/completions" in step.text)
    line = said(output, ask).splitlines()[-1]
    answer = json.loads(line[line.index("{") :])  # after the progress that curl shows
    assert answer["model"] == "llama" and answer["choices"][0]["text"]


def test_what_readme_shows_in_short_changes_nothing_after_it(story: tuple[list[Step], str]) -> None:
    steps, output = story
    (short,) = (step for step in steps if step.block.page == "README.md" and "neuronops.vllm.site" in step.text)
    recaps = re.findall(r"changed=(\d+) +unreachable=(\d+) +failed=(\d+)", said(output, short))
    assert len(recaps) >= 3 and set(recaps) == {("0", "0", "0")}


def test_the_fleet_is_changed_and_changed_back_and_verified(story: tuple[list[Step], str]) -> None:
    steps, output = story
    (update,) = (step for step in steps if "neuronops.vllm.rollback" in step.text)
    assert "light-2" in said(output, update) and "failed=1" not in said(output, update)


def test_a_runner_with_a_project_that_is_read_only_does_the_same(
    story: tuple[list[Step], str], controller: Controller, values: dict[str, str], fleet_variables: dict[str, Any]
) -> None:
    controller.copy(CHECKOUT / "docs" / "awx", f"{HOME}/job/project")
    survey = json.loads((CHECKOUT / "docs" / "awx" / "survey.json").read_text(encoding="utf-8"))["spec"]
    answers = {question["variable"]: question["default"] for question in survey}
    answers |= {"neuron_stack": "light-1", "neuron_state": f"{HOME}/fleet/.neuronops", "awx_job_id": "7"}
    answers |= {"vllm_server_model": "/srv/models/llama", "vllm_server_max_model_len": "4096"}
    controller.write(f"{HOME}/job/env/extravars", json.dumps(answers))
    controller.write(f"{HOME}/job/env/envvars", json.dumps({"AWS_PROFILE": "me", "AWS_REGION": ec2.REGION}))
    controller.root(
        f"mkdir {HOME}/job/inventory && cp -r {HOME}/fleet/aws_ec2.yml {HOME}/fleet/group_vars {HOME}/job/inventory/"
        f"&& chown -R root: {HOME}/job/project {HOME}/job/inventory"
    )
    output = controller.types(
        "job.sh",
        [
            ". ~/neuronops/bin/activate",
            "pip -q install ansible-runner",
            "test ! -w ~/job/project && test ! -w ~/job/inventory",
            "ansible-runner run ~/job --playbook site.yml",
            f"curl -sf http://127.0.0.1:{values['port']}/v1/models",
        ],
    )
    output = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert re.findall(r"changed=(\d+) +unreachable=(\d+) +failed=(\d+)", output) == [("0", "0", "0")] * 2, output[
        -3000:
    ]
    assert '"llama"' in output.splitlines()[-1]


def test_nothing_runs_after_the_clean_up(story: tuple[list[Step], str], controller: Controller) -> None:
    steps, _ = story
    begin = next(number for number, step in enumerate(steps) if "neuronops.vllm.terminate" in step.text)
    lines = [". ~/neuronops/bin/activate", "cd ~/fleet", "export AWS_PROFILE=me AWS_REGION=us-east-1"]
    for step in steps[begin:]:
        if step.block.language == "sh":
            lines += [f"echo; echo '{step}'", step.text]
    output = controller.types("end.sh", lines)
    look = next(step for step in steps[begin:] if "describe-instances" in step.text)
    running, _ = json.JSONDecoder().raw_decode(said(output, look).strip())
    assert running == []


def test_every_exception_is_one() -> None:
    pages = [block for page in ("docs/tutorial.md", "README.md") for block in blocks(CHECKOUT / page)]
    text = "\n".join(block.text for block in pages)
    for pattern, _, why in STAND_INS:
        assert re.search(pattern, text, re.MULTILINE), f"no block has {pattern} any more: {why}"
    for start in NOT_TYPED:
        assert re.search(rf"(?m)^{re.escape(start)}", text), f"no block has {start} any more"
