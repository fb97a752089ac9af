# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX and execution environments are given is accepted by their tools, and runs where nothing can be written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.plugin_utils import options

CHECKOUT = Path(__file__).resolve().parents[2]
AWX = CHECKOUT / "docs" / "awx"
PROGRAMS = Path(sys.executable).parent
SURVEY: list[dict[str, Any]] = json.loads((AWX / "survey.json").read_text(encoding="utf-8"))["spec"]


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run a program; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the collection, as Galaxy installs it."""
    folder = tmp_path_factory.mktemp("collections")
    (folder / "ansible_collections" / "neuronops").mkdir(parents=True)
    (folder / "ansible_collections" / "neuronops" / "vllm").symlink_to(CHECKOUT)
    return folder


def test_ansible_builder_finds_what_the_collection_needs(collections: Path) -> None:
    found = yaml.safe_load(run(PROGRAMS / "ansible-builder", "introspect", "--sanitize", collections))
    python, system = "\n".join(found["python"]), "\n".join(found["system"])
    for wanted in (r"^boto3\b.*>=1\.35\.2", r"^botocore\b.*>=1\.35\.2", r"^uv==", "from collection neuronops.vllm"):
        assert re.search(wanted, python, re.MULTILINE), python
    assert re.search(r"^openssh-clients \[platform:rpm\]", system, re.MULTILINE), system


def test_an_execution_environment_has_the_uv_that_the_collection_wants() -> None:
    wanted = re.findall(r"^uv==\S+", (CHECKOUT / "data" / "uv.txt").read_text(encoding="utf-8"), re.MULTILINE)
    given = re.findall(r"^uv==\S+", (CHECKOUT / "meta" / "ee-requirements.txt").read_text(), re.MULTILINE)
    assert wanted == given and len(given) == 1


def test_ansible_builder_takes_the_definition(tmp_path: Path) -> None:
    context = tmp_path / "context"
    definition = AWX / "execution-environment.yml"
    run(
        PROGRAMS / "ansible-builder",
        "create",
        "--file",
        definition,
        "--context",
        context,
        "--output-filename",
        "Containerfile",
    )
    made = (context / "Containerfile").read_text(encoding="utf-8")
    assert "python3.12" in made and "ansible-core>=2.19" in made
    galaxy = yaml.safe_load((context / "_build" / "requirements.yml").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in galaxy["collections"]] == ["neuronops.vllm"]


@pytest.mark.parametrize("question", SURVEY, ids=lambda question: str(question["variable"]))
def test_an_answer_of_the_survey_is_the_option_as_yaml_writes_it(question: dict[str, Any]) -> None:
    assert question["type"] in ("text", "password", "multiplechoice"), "the others are not text"
    name = question["variable"]
    (owner,) = (owner for owner in (*options.roles(), *options.playbooks()) if name in options.specification(owner))
    spec = options.specification(owner)[name]
    answers = [question["default"], *question.get("choices", [])]
    for answer in answers:
        assert isinstance(answer, str)
        in_yaml = yaml.safe_load(answer) if spec.get("type") not in ("str", "path") else answer
        converted = options.convert(name, answer, spec)
        assert converted == options.convert(name, in_yaml, spec)
        assert type(converted) is type(options.convert(name, in_yaml, spec))
    if "choices" in question:
        assert question["default"] in question["choices"]
    if "default" in spec and name not in ("neuron_state", "vllm_server_max_model_len"):  # which each fleet says
        assert options.convert(name, question["default"], spec) == spec["default"]


def test_there_is_a_playbook_for_each_that_a_job_runs() -> None:
    for path in (CHECKOUT / "playbooks").glob("*.yml"):
        if path.stem in ("launch", "terminate", "bake_image"):  # run where the fleet is made, by people
            continue
        wrapper = yaml.safe_load((AWX / path.name).read_text(encoding="utf-8"))
        assert [play["import_playbook"] for play in wrapper] == [f"neuronops.vllm.{path.stem}"]


# A job as ansible-runner starts it: project and inventory are read-only, and what it writes are its artifacts.


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, collections: Path) -> Path:
    """The private data folder of a job, with a host that is this machine and is never changed."""
    folder = tmp_path_factory.mktemp("job")
    shutil.copytree(AWX, folder / "project")
    check_options = [{"ansible.builtin.import_role": {"name": "neuronops.vllm.vllm", "tasks_from": "preflight"}}]
    play = {"hosts": "neuron", "gather_facts": False, "tasks": check_options}
    (folder / "project" / "preflight.yml").write_text(json.dumps([play]), encoding="utf-8")
    (folder / "inventory").mkdir()
    (folder / "inventory" / "hosts").write_text("[neuron]\nlocalhost ansible_connection=local\n", encoding="utf-8")
    (folder / "env").mkdir()
    answers = {question["variable"]: question["default"] for question in SURVEY}
    answers |= {"vllm_server_model": "someone/a-model", "awx_job_id": 7, "ansible_python_interpreter": sys.executable}
    del answers["neuron_state"]
    (folder / "env" / "extravars").write_text(json.dumps(answers), encoding="utf-8")
    return folder


def in_a_job(
    job: Path, collections: Path, playbook: str, *arguments: str, folders: tuple[str, ...] = ("project", "inventory")
) -> tuple[int, str]:
    """Run a playbook in check mode by ansible-runner, where these folders of the job cannot be written to."""
    readonly = [f"mount --bind {job / name} {job / name} && mount -o remount,bind,ro {job / name}" for name in folders]
    runner = [str(PROGRAMS / "ansible-runner"), "run", str(job), "--playbook", playbook]
    runner.append(f"--cmdline={' '.join(['--check', *arguments])}")
    environment = {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "HOME": str(job),
        "ANSIBLE_COLLECTIONS_PATH": f"{collections}:{os.environ.get('ANSIBLE_COLLECTIONS_PATH', '')}".rstrip(":"),
        "LC_ALL": "C.UTF-8",
    }
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *user, "--mount", "bash", "-c", f'{" && ".join(readonly)} && exec "$@"', "job", *runner]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))


@pytest.mark.parametrize("playbook", ["preflight.yml", "site.yml"])
def test_a_job_that_can_keep_nothing_says_so_before_any_work(job: Path, collections: Path, playbook: str) -> None:
    status, said = in_a_job(job, collections, playbook)
    assert status != 0
    assert f"cannot be kept in {job}/inventory/.neuronops" in said and "Read-only file system" in said, said
    assert "Set neuron_state to" in said and "-e neuron_state=s3://my-bucket/neuronops" in said
    assert "changed=0" in said and not (job / "inventory" / ".neuronops").exists()


def test_a_job_with_a_place_that_lasts_begins(job: Path, collections: Path, tmp_path: Path) -> None:
    status, said = in_a_job(job, collections, "preflight.yml", "-e", f"neuron_state={tmp_path}")
    assert status == 0 and "failed=0" in said and "neuron_state" not in said.split("TASK")[1], said


def test_a_job_is_told_that_its_copy_of_the_project_does_not_last(job: Path, collections: Path) -> None:
    status, said = in_a_job(job, collections, "preflight.yml", folders=("project",))
    assert status == 0 and "this job of AWX has for itself" in said and "Set neuron_state to" in said, said
