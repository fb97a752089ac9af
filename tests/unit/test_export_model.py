# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that exports a model for optimum-neuron, with a stand-in for what exports, and the tasks around it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = CHECKOUT / "roles" / "vllm_server" / "files" / "export_model.py"
WANTED = {"max_model_len": 2048, "max_num_seqs": 4, "tensor_parallel_size": 2}
MODEL = """
import json, os, pathlib, signal

class Exported:
    def __init__(self, source, config):
        self.source, self.config = source, config

    def save_pretrained(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir()
        work = pathlib.Path(os.environ["BASE_COMPILE_WORK_DIR"])
        (work / "graph").write_text("x")
        assert work.parent == folder.parent
        (folder / "model.pt").write_text("compiled")
        if os.environ.get("FAULT") == "raises":
            raise RuntimeError("the compiler ate it")
        if os.environ.get("FAULT") == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("FAULT") == "other":
            self.config["batch_size"] = 1
        (folder / "neuron_config.json").write_text(json.dumps(self.config))

class NeuronModelForCausalLM:
    @staticmethod
    def get_neuron_config(source, instance_type, batch_size, sequence_length, tensor_parallel_size):
        return {"batch_size": batch_size, "sequence_length": sequence_length, "tp_degree": tensor_parallel_size,
                "target": instance_type}

    @staticmethod
    def export(source, neuron_config):
        return Exported(source, neuron_config)
"""
INSTANCE = """
import os
def current_instance_type():
    if "INSTANCE" not in os.environ:
        raise RuntimeError("No Neuron device detected.")
    return os.environ["INSTANCE"]
"""
TOKENIZER = """
import pathlib
class AutoTokenizer:
    def __init__(self, source):
        self.source = source
    @classmethod
    def from_pretrained(cls, source):
        return cls(source)
    def save_pretrained(self, folder):
        pathlib.Path(folder, "tokenizer.json").write_text(self.source)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model, and beside it the stand-in for the packages."""
    for name, text in {
        "packages/optimum/neuron/__init__.py": MODEL,
        "packages/optimum/neuron/utils/__init__.py": "",
        "packages/optimum/neuron/utils/instance.py": INSTANCE,
        "packages/transformers.py": TOKENIZER,
        "model/config.json": "{}",
        "model/generation_config.json": '{"eos_token_id": [1, 2]}',
        "model/model.safetensors": "weights",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "artifacts").mkdir()
    return tmp_path / "model"


def run(
    source: Path, fault: str = "", instance: str | None = "trn1", **wanted: int
) -> subprocess.CompletedProcess[str]:
    given = {"model": str(source), "folder": str(folder_of(source)), **WANTED, **wanted}
    environment = {"PYTHONPATH": str(source.parent / "packages"), "FAULT": fault}
    return subprocess.run(
        [sys.executable, str(PROGRAM), json.dumps(given)],
        env={**environment, **({"INSTANCE": instance} if instance else {})},
        capture_output=True,
        text=True,
        check=False,
    )


def folder_of(source: Path) -> Path:
    return source.parent / "artifacts" / ("a" * 16)


def there(source: Path) -> list[str]:
    return sorted(path.name for path in (source.parent / "artifacts").iterdir())


def test_a_model_is_exported_once_for_the_instance_with_what_vllm_reads_beside_it(source: Path) -> None:
    done = run(source)
    assert (done.returncode, done.stderr) == (0, "") and "EXPORTED: " in done.stdout
    folder = folder_of(source)
    names = ["generation_config.json", "model.pt", "neuron_config.json", "tokenizer.json"]
    assert sorted(path.name for path in folder.iterdir()) == names and there(source) == [folder.name]
    config = {"batch_size": 4, "sequence_length": 2048, "tp_degree": 2, "target": "trn1"}
    assert json.loads((folder / "neuron_config.json").read_text()) == config
    (folder / "model.pt").write_text("as it was")
    again = run(source)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert (folder / "model.pt").read_text() == "as it was"


@pytest.mark.parametrize(("fault", "says"), [("raises", "the compiler ate it"), ("killed", "")])
def test_an_export_that_was_cut_off_is_never_taken_for_whole(source: Path, fault: str, says: str) -> None:
    failed = run(source, fault)
    assert failed.returncode != 0 and says in failed.stderr and not folder_of(source).exists()
    assert there(source) == ([] if fault == "raises" else [f"{folder_of(source).name}.part"])
    assert run(source).returncode == 0 and there(source) == [folder_of(source).name]


def test_an_export_is_held_against_what_is_asked_for(source: Path) -> None:
    failed = run(source, "other")
    assert "max_num_seqs is 1 in place of 4. Remove it, and run the role again" in failed.stderr
    assert there(source) == []
    run(source)
    failed = run(source, max_model_len=4096)
    assert failed.returncode == 1 and "max_model_len is 2048 in place of 4096" in failed.stderr
    (folder_of(source) / "neuron_config.json").unlink()
    assert "neuron_config.json" in run(source).stderr


def test_nothing_is_exported_for_an_instance_that_is_not_known(source: Path) -> None:
    assert "No Neuron device detected." in run(source, instance=None).stderr and there(source) == []


def test_a_volume_without_room_is_told_before_anything_is_compiled(source: Path) -> None:
    with (source / "model.safetensors").open("wb") as file:
        file.truncate(shutil.disk_usage(source).free + (1 << 30))  # sparse
    assert "an export of" in (said := run(source).stderr) and "enlarge the volume" in said and there(source) == []


# What there is of systemd-run: the options before `--`, in a file, and the program after them, run with this
# Python and not isolated, so that it finds the stand-in.
SYSTEMD_RUN = """#!/bin/sh
echo "$@" | head -1 >> "$ASKED"
while [ "$1" != -- ]; do shift; done
shift 3
exec {python} "$@"
"""


@pytest.fixture
def play(source: Path, tmp_path: Path) -> Callable[..., str]:
    """Run the role's tasks of the export on this machine, and return what was said."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemd-run").write_text(SYSTEMD_RUN.replace("{python}", sys.executable))
    (tmp_path / "bin" / "systemd-run").chmod(0o755)
    tasks = [{"ansible.builtin.import_role": {"name": "neuronops.vllm.vllm_server", "tasks_from": "export"}}]
    known: dict[str, Any] = {
        "neuron_stack": "optimum-0.4.5",
        "vllm_server_model": str(source),
        "vllm_server_max_model_len": 2048,
        "__vllm_server_host": {"neuron_ls": {"cores": 2}},
        "_vllm_server_artifacts_folder": str(folder_of(source)),
        "_vllm_server_plan": {"start": True},
        "ansible_python_interpreter": sys.executable,
    }
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))

    def run_play(*arguments: str, fault: str = "") -> str:
        answer = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                *("-i", "localhost,", "-c", "local", "-e", json.dumps(known), str(tmp_path / "play.yml"), *arguments),
            ],
            env={
                **os.environ,
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
                "ASKED": str(tmp_path / "asked"),
                "FAULT": fault,
                "INSTANCE": "trn1",
                "PYTHONPATH": str(tmp_path / "packages"),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return " ".join((answer.stdout + answer.stderr).replace("\\n", " ").split())

    return run_play


def test_the_role_exports_once_and_says_what_went_wrong(play: Callable[..., str], source: Path, tmp_path: Path) -> None:
    said = play("--check")
    assert f"would be exported on localhost into {folder_of(source)}" in said and "changed=1" in said
    assert there(source) == [] and not (tmp_path / "asked").exists()
    said = play(fault="raises")
    assert f"{source} could not be exported on localhost (status 1)" in said and "the compiler ate it" in said
    assert "What served before was not touched." in said and "changed=0" in said
    said = play()
    assert "changed=1" in said and "failed=0" in said and there(source) == [folder_of(source).name], said
    assert "a prompt of one token alone changes the answers" in said
    asked = (tmp_path / "asked").read_text()
    assert "--unit vllm-export" in asked and "--property=User=vllm" in asked
    assert "changed=0" in (again := play()) and "failed=0" in again
