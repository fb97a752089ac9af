# SPDX-License-Identifier: GPL-3.0-or-later
"""A build takes what the stack says, leaves nothing behind, and what came out wrong is never installed.

The build backend is a stand-in here that makes a wheel out of what the module gives it; tests/served has the real one.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.neuronops.vllm.plugins.action import vllm_wheel as action
from ansible_collections.neuronops.vllm.plugins.module_utils import forms
from ansible_collections.neuronops.vllm.plugins.modules import vllm_wheel as module
from ansible_collections.neuronops.vllm.plugins.plugin_utils import build_tools, stacks, wheel_store
from packaging.requirements import Requirement

# What setup.py and setuptools do, as far as the module can tell: the version's suffix from the device, requirements
# from the file, and every package that has an __init__.py.
BACKEND = """
import os, pathlib, subprocess, zipfile
def build_wheel(folder):
    device = os.environ.get("VLLM_TARGET_DEVICE", "cuda")
    if pathlib.Path("asks-neuron-ls").exists():
        subprocess.run(["neuron-ls"], check=True)
        device = "neuron"
    suffix = {"neuron": "neuron218", "cuda": "cu121"}.get(device, device)
    base = os.environ["SETUPTOOLS_SCM_PRETEND_VERSION"]
    version = base + ("." if "+" in base else "+") + suffix
    needs = pathlib.Path("requirements/neuron.txt").read_text().split()
    with zipfile.ZipFile(os.path.join(folder, f"vllm-{version}-py3-none-any.whl"), "w") as wheel:
        lines = ["Metadata-Version: 2.1", "Name: vllm", "Version: " + version] + ["Requires-Dist: " + n for n in needs]
        wheel.writestr(f"vllm-{version}.dist-info/METADATA", "\\n".join(lines) + "\\n")
        for package in pathlib.Path("vllm").rglob("__init__.py"):
            wheel.writestr(str(package), "")
"""

# setup.py of a plugin says its version itself; setuptools-scm would take that of the environment.
PLUGIN_BACKEND = """
import os, pathlib, zipfile
def build_wheel(folder):
    name, version, *needs = pathlib.Path("setup.py").read_text().split()
    version = os.environ.get("SETUPTOOLS_SCM_PRETEND_VERSION", version)
    assert "VLLM_TARGET_DEVICE" not in os.environ
    with zipfile.ZipFile(os.path.join(folder, f"{name}-{version}-py3-none-any.whl"), "w") as wheel:
        lines = ["Metadata-Version: 2.1", "Name: " + name, "Version: " + version]
        lines += ["Requires-Dist: " + needed for needed in needs]
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", "\\n".join(lines) + "\\n")
"""
# An entry as it was when the first wheels were kept, in which nothing may change.
IN_TREE: dict[str, Any] = {
    "vllm": {
        "version": "0.9.2",
        "suffix": "neuron218",
        "ref": "v0.9.2",
        "commit": "c" * 40,
        "requirements_file": "requirements/neuron.txt",
        "unlisted_requirements": [],
        "build_requirements": ["setuptools<80", "wheel"],
        "packages_without_init": ["vllm/models"],
        "backend_modules": ["vllm.worker.neuron_worker"],
        "build_environment": {"VLLM_TARGET_DEVICE": "neuron"},
        "needs_neuron_ls": False,
    },
    "python_packages": {"neuronx-cc": "2.18.121.0", "torch": "2.5.1"},
}


class Ended(Exception):  # noqa: N818 - it is no error
    """What the module answered."""


class FakeModule:
    """The part of AnsibleModule that the module uses."""

    parameters: ClassVar[dict[str, Any]] = {}
    check_mode = False

    def __init__(self, argument_spec: dict[str, Any], **_options: Any) -> None:
        defaults = {name: option.get("default") for name, option in argument_spec.items()}
        self.params = {**defaults, **self.parameters}
        assert set(self.params) == set(argument_spec)

    def exit_json(self, **answer: Any) -> None:
        raise Ended({"failed": False, **answer})

    def fail_json(self, **answer: Any) -> None:
        raise Ended({"failed": True, **answer})


def git(folder: Path, *arguments: str) -> str:
    names = {f"GIT_{who}_{what}": "a@b.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    folder = tmp_path / "upstream"
    (folder / "requirements").mkdir(parents=True)
    (folder / "vllm" / "models").mkdir(parents=True)
    (folder / "setup.py").touch()
    (folder / "vllm" / "__init__.py").touch()
    (folder / "vllm" / "models" / "llama.py").touch()
    (folder / "requirements" / "neuron.txt").write_text("fastapi>=0.1 torch-neuronx>=2.5.0 neuronx-cc ray;extra=='ray'")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "release")
    git(folder, "tag", "v0.9.2")
    return folder


@pytest.fixture
def parameters(tmp_path: Path, upstream: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the role gives the module, for an environment with the packages of the stack."""
    stack = stacks.resolve("vllm-0.9.2", overrides={"vllm": {"commit": None}})
    venv = tmp_path / "venv"
    packages = venv / "lib" / "python3.11" / "site-packages"
    for name in ("neuronx-cc", "torch"):
        folder = packages / f"{name.replace('-', '_')}-{stack['python_packages'][name]}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").touch()
        (folder / "RECORD").touch()
    (venv / "bin").mkdir()
    (venv / "bin" / "python").symlink_to(sys.executable)
    uv = tmp_path / "uv"
    uv.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != --target ]; do shift; done\n'
        'mkdir -p "$2/setuptools" && : > "$2/setuptools/__init__.py"\n'
        f'cp {tmp_path}/backend "$2/setuptools/build_meta.py"\n'
    )
    uv.chmod(0o755)
    (tmp_path / "backend").write_text(BACKEND)
    monkeypatch.setattr(module, "have_uv", lambda *_arguments: str(uv))
    monkeypatch.setattr(module, "AnsibleModule", FakeModule)
    return {
        "path": "/unused",
        "stack": stack,
        "source": upstream.as_uri(),
        "venv": str(venv),
        "python_version": "3.11",
        "architecture": "x86_64",
        "build_path": str(tmp_path / "build"),
        "sources": {},
        "build_lock": build_tools.lock(stack["vllm"]["build_requirements"], "3.11"),
        "result_folder": "wheel-of-the-test",
    }


def built(parameters: dict[str, Any], answer: dict[str, Any]) -> Path:
    """Return the path of the wheel that a build has left."""
    return Path(parameters["build_path"], ".neuronops-build", parameters["result_folder"], answer["wheel"])


def left_in(parameters: dict[str, Any]) -> list[str]:
    """Return what is below the build path, of which one folder is ours."""
    assert [path.name for path in Path(parameters["build_path"]).iterdir()] == [".neuronops-build"]
    return sorted(path.name for path in Path(parameters["build_path"], ".neuronops-build").iterdir())


@pytest.fixture
def for_no_device(parameters: dict[str, Any], upstream: Path) -> dict[str, Any]:
    """What the role gives the module for a vLLM that a plugin teaches Neuron: no compiler is in the environment."""
    stack = stacks.resolve("vllm-0.11.0", overrides={"vllm": {"commit": None}, "python_packages": {"torch": "2.5.1"}})
    assert not {"backend_modules", "packages_without_init", "needs_neuron_ls"} & set(stack["vllm"])
    (upstream / "requirements" / "common.txt").write_text("fastapi>=0.1")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-q", "-m", "for plugins")
    git(upstream, "tag", "v0.11.0")
    for path in Path(parameters["venv"]).rglob("neuronx_cc*/*"):
        path.unlink()
    next(Path(parameters["venv"]).rglob("neuronx_cc*")).rmdir()
    return {**parameters, "stack": stack}


@pytest.fixture
def plugin(parameters: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """What the role gives the module for a plugin, where the environment has no package at all."""
    folder = tmp_path / "plugin"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    needs = "packaging>=24.2 vllm==0.11.0 vLLM[audio]>=0.11 vllm-extras torch-neuronx>=2.7.0 nki numpy;extra=='test'"
    (folder / "setup.py").write_text(f"vllm_neuron 0.2.2+lts {needs}")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "release")
    git(folder, "tag", "0.2.2+lts")
    (tmp_path / "backend").write_text(PLUGIN_BACKEND)
    own = {"source": folder.as_uri(), "commit": git(folder, "rev-parse", "HEAD")}
    venv = tmp_path / "bare"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    stack = stacks.resolve("vllm-0.11.0", overrides={"plugin": own})
    return {**parameters, "of": "plugin", "stack": stack, "source": "", "venv": str(venv)}


def with_plugin(parameters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    changed = copy.deepcopy(parameters)
    changed["stack"]["plugin"].update(fields)
    return changed


def run(parameters: dict[str, Any]) -> dict[str, Any]:
    FakeModule.parameters = parameters
    with pytest.raises(Ended) as ended:
        module.main()
    answer: dict[str, Any] = ended.value.args[0]
    return answer


def with_vllm(parameters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    changed = copy.deepcopy(parameters)
    changed["stack"]["vllm"].update(fields)
    return changed


def test_the_wheel_is_all_that_is_left_of_a_build(parameters: dict[str, Any], upstream: Path) -> None:
    answer = run(parameters)
    assert not answer["failed"], answer
    assert answer["version"] == "0.9.2+neuron218"
    assert answer["commit"] == git(upstream, "rev-parse", "HEAD")
    assert answer["requirements"] == ["fastapi>=0.1"], "Neuron's packages and extras are not among them"
    assert answer["wheel"] == "vllm-0.9.2+neuron218-py3-none-any.whl"
    assert sorted(answer) == ["changed", "commit", "failed", "requirements", "sha256", "version", "wheel"]
    wheel = built(parameters, answer)
    assert left_in(parameters) == ["lock", "wheel-of-the-test"]
    assert answer["sha256"] == module.sha256(str(wheel))
    assert wheel.stat().st_mode & 0o777 == 0o644


def test_what_a_killed_build_left_does_not_matter(parameters: dict[str, Any]) -> None:
    with module.Workplace(parameters["build_path"]) as workplace:
        left = Path(workplace.new())
        (left / "source").mkdir()
    mark = json.loads((left / workplace.MARK).read_text())
    (left / workplace.MARK).write_text(json.dumps({**mark, "started": "1"}))
    assert not run(parameters)["failed"]
    assert not left.exists()


def test_a_failed_build_leaves_nothing_and_shows_its_end(parameters: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "backend").write_text("def build_wheel(folder): raise SystemExit('the compiler ate it')")
    answer = run(parameters)
    assert answer["failed"]
    assert "The build of vLLM 0.9.2 failed" in answer["msg"]
    assert "the compiler ate it" in answer["msg"]
    assert left_in(parameters) == ["lock"]


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cuda", r"0.9.2+cu121, and not as 0.9.2+neuron218: it is for CUDA"),
        ("empty", r"0.9.2+empty, and not as 0.9.2+neuron218: it is for another device"),
    ],
)
def test_a_build_for_another_device_is_refused(parameters: dict[str, Any], device: str, says: str) -> None:
    answer = run(with_vllm(parameters, build_environment={"VLLM_TARGET_DEVICE": device}))
    assert answer["failed"]
    assert says in answer["msg"]


def test_a_build_beside_another_compiler_is_refused(parameters: dict[str, Any]) -> None:
    answer = run(with_vllm(parameters, suffix="neuron217"))
    assert "it is for another neuronx-cc than the stack's, whose suffix is neuron217" in answer["msg"]


def test_a_release_that_asks_neuron_ls_gets_its_yes(parameters: dict[str, Any], upstream: Path) -> None:
    (upstream / "asks-neuron-ls").touch()
    git(upstream, "add", "-A")
    git(upstream, "commit", "-q", "-m", "asks")
    git(upstream, "tag", "-f", "v0.9.2")
    without = run(with_vllm(parameters, build_environment={}))
    assert without["failed"], "this machine has a neuron-ls, so the test proves nothing"
    answer = run(with_vllm(parameters, build_environment={}, needs_neuron_ls=True))
    assert answer["version"] == "0.9.2+neuron218", answer


def test_a_branch_names_its_commit_in_the_version(parameters: dict[str, Any], upstream: Path) -> None:
    head = git(upstream, "rev-parse", "HEAD")
    answer = run(with_vllm(parameters, ref="main"))
    assert answer["version"] == f"0.9.2+g{head[:9]}.neuron218"


def test_an_archive_has_the_version_of_the_stack(parameters: dict[str, Any], upstream: Path, tmp_path: Path) -> None:
    archive = tmp_path / "vllm.tar.gz"
    git(upstream, "archive", "--prefix=vllm-0.9.2/", "-o", str(archive), "v0.9.2")
    answer = run({**parameters, "source": str(archive), "source_checksum": module.sha256(str(archive))})
    assert (answer["version"], answer["commit"]) == ("0.9.2+neuron218", "")


def test_a_folder_without_init_becomes_a_package_of_the_wheel(parameters: dict[str, Any]) -> None:
    answer = run(with_vllm(parameters, packages_without_init=["vllm/models"]))
    with zipfile.ZipFile(built(parameters, answer)) as wheel:
        assert "vllm/models/__init__.py" in wheel.namelist()


@pytest.mark.parametrize(
    ("fields", "lacks"),
    [
        ({"requirements_file": "requirements-neuron.txt"}, "requirements-neuron.txt"),
        ({"packages_without_init": ["vllm/model_executor/models/neuron"]}, "vllm/model_executor/models/neuron"),
    ],
)
def test_incomplete_sources_are_refused(parameters: dict[str, Any], fields: dict[str, Any], lacks: str) -> None:
    assert f"The sources lack {lacks}." in run(with_vllm(parameters, **fields))["msg"]


def test_an_environment_without_the_compiler_is_refused(parameters: dict[str, Any]) -> None:
    parameters["stack"]["python_packages"]["neuronx-cc"] = "2.17.194.0"
    answer = run(parameters)
    assert "has neuronx-cc 2.18.121.0 in place of 2.17.194.0" in answer["msg"]
    assert not Path(parameters["build_path"]).exists()


def test_a_full_disk_is_refused_before_anything_is_written(parameters: dict[str, Any]) -> None:
    answer = run({**parameters, "disk_needed": 10**9})
    assert "MB free, and the build needs 1000000000 MB" in answer["msg"]
    assert not Path(parameters["build_path"]).exists()


def test_a_file_from_a_url_needs_its_checksum(parameters: dict[str, Any]) -> None:
    answer = run({**parameters, "source": "https://mirror.example/vllm.tar.gz"})
    assert "vllm_source_checksum must be its SHA-256" in answer["msg"]


def test_a_file_from_a_url_is_compared(
    parameters: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "downloaded").write_text("something else")
    monkeypatch.setattr(module, "fetch_file", lambda *_arguments, **_options: str(tmp_path / "downloaded"))
    answer = run({**parameters, "source": "https://mirror.example/vllm.tar.gz", "source_checksum": "0" * 64})
    assert "is not the file with the SHA-256 in vllm_source_checksum" in answer["msg"]


def test_a_vllm_for_no_device_is_built_without_a_compiler(for_no_device: dict[str, Any]) -> None:
    answer = run(for_no_device)
    assert (answer.get("version"), answer["failed"]) == ("0.11.0+empty", False), answer
    assert answer["wheel"] == "vllm-0.11.0+empty-py3-none-any.whl"
    branch = run({**with_vllm(for_no_device, ref="main"), "result_folder": "wheel-of-the-branch"})
    assert branch["version"] == f"0.11.0+g{answer['commit'][:9]}.empty"


def test_a_vllm_for_no_device_is_built_beside_torch(for_no_device: dict[str, Any]) -> None:
    for_no_device["stack"]["python_packages"]["torch"] = "2.8.0"
    message = run(for_no_device)["msg"]
    assert "has torch 2.5.1 in place of 2.8.0: the build needs it. Run the role" in message


@pytest.mark.parametrize("device", ["neuron", "cuda"])
def test_a_build_for_a_device_is_refused_where_a_plugin_brings_it(for_no_device: dict[str, Any], device: str) -> None:
    answer = run(with_vllm(for_no_device, build_environment={"VLLM_TARGET_DEVICE": device}))
    assert answer["failed"] and "and not as 0.11.0+empty: it is for a device" in answer["msg"]


def test_a_vllm_for_no_device_needs_the_list_of_its_requirements(for_no_device: dict[str, Any]) -> None:
    answer = run(with_vllm(for_no_device, requirements_file="requirements/other.txt"))
    assert answer["failed"] and "The sources lack requirements/other.txt." in answer["msg"]


def test_a_plugin_is_built_as_its_sources_say(plugin: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETUPTOOLS_SCM_PRETEND_VERSION", "9")
    answer = run(plugin)
    assert not answer["failed"], answer
    assert (answer["version"], answer["wheel"]) == ("0.2.2+lts", "vllm_neuron-0.2.2+lts-py3-none-any.whl")
    assert answer["commit"] == plugin["stack"]["plugin"]["commit"]
    assert answer["requirements"] == ["packaging>=24.2", "vllm-extras"], "neither vLLM's nor Neuron's packages"
    assert left_in(plugin) == ["lock", "wheel-of-the-test"]
    assert answer["sha256"] == module.sha256(str(built(plugin, answer)))


def test_vllm_is_left_out_of_a_plugins_requirements_alone(parameters: dict[str, Any], upstream: Path) -> None:
    (upstream / "requirements" / "neuron.txt").write_text("vllm>=0.1")
    git(upstream, "commit", "-q", "-a", "-m", "itself")
    git(upstream, "tag", "-f", "v0.9.2")
    assert run(parameters)["requirements"] == ["vllm>=0.1"]


@pytest.mark.parametrize("wanted", ["0.2.2", "0.2.2+lts.1", "0.2.1+lts"])
def test_a_plugin_of_another_version_is_refused(plugin: dict[str, Any], wanted: str) -> None:
    answer = run(with_plugin(plugin, version=wanted))
    assert answer["failed"] and f"came out as 0.2.2+lts, and not as {wanted}: the sources are those of" in answer["msg"]
    assert left_in(plugin) == ["lock"]


def test_a_plugin_for_another_vllm_is_refused(plugin: dict[str, Any]) -> None:
    changed = copy.deepcopy(plugin)
    changed["stack"]["vllm"]["version"] = "0.12.0"
    said = "vllm-neuron 0.2.2+lts is for vLLM 0.11.0 alone, and vllm.version of the stack is 0.12.0"
    assert said in run(changed)["msg"]
    assert action.folder_name(changed) != action.folder_name(plugin), "a wheel that was made for the other is not taken"


def test_a_branch_of_a_plugin_has_the_plugins_version(plugin: dict[str, Any]) -> None:
    assert run(with_plugin(plugin, ref="main", commit=None))["version"] == "0.2.2+lts"


def test_another_package_than_the_plugin_is_refused(plugin: dict[str, Any]) -> None:
    answer = run(with_plugin(plugin, name="vllm-other"))
    assert answer["failed"] and "should be one of vllm-other" in answer["msg"]


def test_a_plugin_whose_build_fails_is_named(plugin: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "backend").write_text("def build_wheel(folder): raise SystemExit('the compiler ate it')")
    assert "The build of vllm-neuron 0.2.2+lts failed: the compiler ate it" in run(plugin)["msg"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"commit": "d" * 40}, "set neuron_stack_overrides.plugin.commit to it"),
        ({"commit": "ad8296537"}, "plugin.commit of the stack is 'ad8296537'"),
        ({"ref": "0.2.2+its"}, "near it are: 0.2.2+lts. Correct plugin.ref in neuron_stack_overrides."),
        ({"ref": "--upload-pack=x"}, "plugin.ref of the stack is '--upload-pack=x'"),
        ({"source": "ext::sh -c x"}, "vllm_plugin_source is 'ext::sh -c x'"),
        ({"source": "http://127.0.0.1:9/x.git"}, "vllm_plugin_source can also name a mirror"),
        ({"source": "https://mirror.example/x.tar.gz"}, "vllm_plugin_source_checksum must be its SHA-256"),
    ],
)
def test_a_plugins_sources_are_proved_as_vllms_are(plugin: dict[str, Any], fields: dict[str, Any], says: str) -> None:
    answer = run(with_plugin(plugin, **fields))
    assert answer["failed"] and says in answer["msg"]


def test_a_plugins_tag_must_be_signed_where_there_is_a_key(plugin: dict[str, Any]) -> None:
    answer = run({**plugin, "source_key": "no key"})
    assert answer["failed"] and "vllm_plugin_source_key is no key" in answer["msg"]


def test_a_plugin_is_built_from_an_archive(plugin: dict[str, Any], tmp_path: Path) -> None:
    archive = tmp_path / "plugin.tar.gz"
    git(tmp_path / "plugin", "archive", "--prefix=plugin/", "-o", str(archive), "0.2.2+lts")
    answer = run({**plugin, "source": str(archive), "source_checksum": module.sha256(str(archive))})
    assert (answer["version"], answer["commit"]) == ("0.2.2+lts", "")
    answer = run({**plugin, "source": str(archive), "source_checksum": "0" * 64, "result_folder": "wheel-2"})
    assert answer["failed"]


def test_a_plugin_is_not_built_without_an_interpreter(plugin: dict[str, Any]) -> None:
    answer = run({**plugin, "venv": "/nonexistent"})
    assert "/nonexistent has no interpreter to build with. Run the role neuronops.vllm.neuron_venv" in answer["msg"]
    assert not Path(plugin["build_path"]).exists()


@pytest.mark.parametrize("name", ["vllm-0.9.2", "optimum-0.4.5"])
def test_a_stack_without_sources_of_a_plugin_builds_none(plugin: dict[str, Any], tmp_path: Path, name: str) -> None:
    answer = run({**plugin, "stack": stacks.resolve(name)})
    assert answer["failed"] and "the stack has no plugin that is built from sources" in answer["msg"]
    assert not Path(plugin["build_path"]).exists()
    host = make_hosts(tmp_path, builds, 1)[0]
    answer = host.go({**plugin, "path": str(tmp_path / "store"), "stack": stacks.resolve(name)})
    assert answer["failed"] and "the stack has no plugin that is built from sources" in answer["msg"]
    assert host.calls == 0


class Host(action.ActionModule):  # type: ignore[misc]  # ansible has no types
    """The action on the controller, with a host whose module answers as told."""

    def __init__(self, name: str, answers: Any, folder: Path) -> None:
        self.name, self.answers, self.folder, self.calls = name, answers, folder, 0
        self.fetched: list[str] = []
        self._connection = self

    def fetch_file(self, remote: str, local: str) -> None:
        self.fetched.append(remote)
        name = Path(remote).name
        assert remote == f"/opt/neuronops/build/.neuronops-build/{self.sent['result_folder']}/{name}"
        Path(local).write_bytes((self.folder / name).read_bytes())

    def _execute_module(self, module_name: str = "", module_args: Any = None, **_rest: Any) -> dict[str, Any]:
        if module_name.endswith(".file"):
            assert module_args["path"].startswith("/opt/neuronops/build/.neuronops-build/wheel-")
            for path in self.folder.iterdir():
                path.unlink()
            return {}
        self.calls += 1
        self.sent = module_args
        answer: dict[str, Any] = self.answers(self)
        return answer

    def go(self, arguments: dict[str, Any], check: bool = False) -> dict[str, Any]:
        self._task = type("Task", (), {"args": arguments, "check_mode": check, "async_val": 0, "diff": False})
        answer: dict[str, Any] = self.run(task_vars={"inventory_hostname": self.name})
        return answer


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "path": str(tmp_path / "store"),
        "stack": stacks.resolve("vllm-0.9.2"),
        "venv": "/opt/venv",
        "python_version": "3.11",
        "architecture": "x86_64",
    }


@pytest.fixture(autouse=True)
def plain_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base class's own start needs a whole Ansible around it."""
    monkeypatch.setattr(action.ActionBase, "run", lambda *_arguments, **_options: {})


COMMIT = stacks.resolve("vllm-0.9.2")["vllm"]["commit"]


def builds(host: Host) -> dict[str, Any]:
    """Answer as the module does when it has built."""
    time.sleep(0.2)
    wheel = host.folder / "vllm-0.9.2+neuron218-py3-none-any.whl"
    wheel.write_text("the wheel")
    facts = {"sha256": module.sha256(str(wheel)), "version": "0.9.2+neuron218", "commit": COMMIT, "requirements": []}
    return {"changed": True, "wheel": wheel.name, **facts}


def fails(_host: Host) -> dict[str, Any]:
    time.sleep(0.2)
    return {"failed": True, "msg": "git is out"}


def all_at_once(hosts: list[Host], arguments: dict[str, Any]) -> list[dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {}
    threads = [
        threading.Thread(target=lambda host=host: answers.update({host.name: host.go(arguments)})) for host in hosts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[host.name] for host in hosts]


def make_hosts(tmp_path: Path, answers: Any, count: int = 4) -> list[Host]:
    folders = [tmp_path / f"host{number}" for number in range(count)]
    for folder in folders:
        folder.mkdir()
    return [Host(folder.name, answers, folder) for folder in folders]


def test_one_host_builds_and_all_have_the_same_wheel(tmp_path: Path, arguments: dict[str, Any]) -> None:
    hosts = make_hosts(tmp_path, builds)
    answers = all_at_once(hosts, arguments)
    assert [host.calls for host in hosts].count(1) == 1 == sum(host.calls for host in hosts)
    assert len({answer["sha256"] for answer in answers}) == 1
    assert [answer["built"] for answer in answers].count(True) == 1
    assert [answer["changed"] for answer in answers] == [answer["built"] for answer in answers]
    assert not any(folder.iterdir() for folder in tmp_path.glob("host*") if any(folder.iterdir())), (
        "left on the builder"
    )


def test_a_second_run_builds_nothing(tmp_path: Path, arguments: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    first, second = host.go(arguments), host.go(arguments)
    assert (host.calls, second["changed"], second["built"]) == (1, False, False)
    assert second["sha256"] == first["sha256"]


def test_all_hosts_hear_why_the_one_failed_and_the_next_run_tries_again(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    hosts = make_hosts(tmp_path, fails)
    answers = all_at_once(hosts, arguments)
    assert sum(host.calls for host in hosts) == 1
    assert all(answer["failed"] and "git is out" in answer["msg"] for answer in answers)
    hosts[0].answers = builds
    assert hosts[0].go(arguments)["built"]


def test_a_check_run_builds_nothing(tmp_path: Path, arguments: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    answer = host.go(arguments, check=True)
    assert (answer["changed"], answer["wheel"], host.calls) == (True, "", 0)
    assert not Path(arguments["path"]).exists()
    host.go(arguments)
    assert host.go(arguments, check=True)["changed"] is False


@pytest.mark.parametrize("no", [False, "no", "false"])
@pytest.mark.parametrize("check", [False, True])
def test_who_may_not_build_gets_a_wheel_that_is_there(
    tmp_path: Path, arguments: dict[str, Any], no: Any, check: bool
) -> None:
    builder, other = make_hosts(tmp_path, builds, 2)
    mirror = tmp_path / "mirror"
    asking = {**arguments, "build": no, "mirror": str(mirror), "mirror_write": True}
    answer = other.go(asking, check)
    directory = str(Path(arguments["path"]) / action.folder_name(arguments))
    assert answer == {"changed": False, "built": False, "directory": directory, "wheel": ""}
    assert not Path(arguments["path"]).exists() and not mirror.exists()
    first = builder.go({**arguments, "mirror": str(mirror), "mirror_write": True})
    assert other.go(asking, check) == {**first, "changed": False, "built": False}
    elsewhere = {**asking, "path": str(tmp_path / "another controller")}
    answer = other.go(elsewhere, check)
    assert (answer["changed"], answer["built"], answer["wheel"]) == (True, False, "" if check else first["wheel"])
    assert Path(elsewhere["path"]).exists() is not check
    assert other.calls == 0


def test_who_may_not_build_does_not_wait_for_who_builds(tmp_path: Path, arguments: dict[str, Any]) -> None:
    folder = Path(arguments["path"]) / action.folder_name(arguments)
    with action.store.turn(folder):
        start = time.monotonic()
        assert make_hosts(tmp_path, builds, 1)[0].go({**arguments, "build": False})["wheel"] == ""
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["build", "mirror_write", "mirror_insecure"])
def test_what_is_neither_true_nor_false_is_refused(tmp_path: Path, arguments: dict[str, Any], name: str) -> None:
    answer = make_hosts(tmp_path, builds, 1)[0].go({**arguments, name: "perhaps"})
    assert answer["failed"] and f"{name} is 'perhaps', and should be true or false" in answer["msg"]


def test_a_host_is_told_who_builds_and_where_no_wheel_may_be_kept_nothing_is_built(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    (tmp_path / "store").write_text("a file")
    answer = host.go(arguments)
    assert answer["failed"] and "Wheels cannot be kept in" in answer["msg"] and "vllm_wheel_path" in answer["msg"]
    assert host.calls == 0
    (tmp_path / "store").unlink()
    host.go({**arguments, "started_by": "somebody else"})
    assert host.sent["started_by"] == action.store.person()
    assert [path.name for path in tmp_path.glob("store/.*")] == [], "no turn is left"


def test_a_damaged_wheel_is_built_anew(tmp_path: Path, arguments: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    answer = host.go(arguments)
    (Path(answer["directory"]) / answer["wheel"]).write_text("cut off")
    assert host.go(arguments)["built"]
    assert host.calls == 2


def test_a_wheel_damaged_on_its_way_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, lambda host: {**builds(host), "sha256": "0" * 64}, 1)[0]
    answer = host.go(arguments)
    assert answer["failed"]
    assert "damaged on its way" in answer["msg"]


def test_a_mirror_is_asked_before_anything_is_built(tmp_path: Path, arguments: dict[str, Any]) -> None:
    builder, other = make_hosts(tmp_path, builds, 2)
    mirror = tmp_path / "mirror"
    builder.go({**arguments, "mirror": str(mirror), "mirror_write": True})
    answer = other.go({**arguments, "mirror": str(mirror), "path": str(tmp_path / "another controller")})
    assert (other.calls, answer["built"], answer["changed"]) == (0, False, True)
    assert answer["version"] == "0.9.2+neuron218"


def test_a_broken_mirror_is_an_error_and_not_a_build(tmp_path: Path, arguments: dict[str, Any]) -> None:
    builder, other = make_hosts(tmp_path, builds, 2)
    mirror = tmp_path / "mirror"
    builder.go({**arguments, "mirror": str(mirror), "mirror_write": True})
    next(mirror.glob("*/*.whl")).write_text("cut off")
    answer = other.go({**arguments, "mirror": str(mirror), "path": str(tmp_path / "another controller")})
    assert answer["failed"]
    assert "is missing or is not what its manifest says" in answer["msg"]
    assert other.calls == 0


def test_a_build_for_another_platform_knows_the_commit_of_the_first(tmp_path: Path, arguments: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    host.go(arguments)
    assert host.sent["locked_commit"] == ""
    host.go({**arguments, "python_version": "3.10"})
    assert host.sent["locked_commit"] == COMMIT
    host.go({**arguments, "source": "https://mirror.example/vllm.git"})
    assert host.sent["locked_commit"] == "", "another repository has tags of its own"


@pytest.mark.parametrize(
    "change",
    [
        {"python_version": "3.10"},
        {"architecture": "aarch64"},
        {"source": "https://mirror.example/vllm.git"},
        {"source_checksum": "1" * 64},
        {"stack": stacks.resolve("vllm-0.7.3")},
        {"stack": stacks.resolve("vllm-0.9.2", overrides={"python_packages": {"neuronx-cc": "2.17.194.0"}})},
    ],
)
def test_what_decides_on_the_wheel_decides_on_its_folder(arguments: dict[str, Any], change: dict[str, Any]) -> None:
    assert action.folder_name({**arguments, **change}) != action.folder_name(arguments)


def test_what_does_not_decide_on_the_wheel_does_not(arguments: dict[str, Any]) -> None:
    other = stacks.resolve("vllm-0.9.2", overrides={"host_packages": {"aws-neuronx-tools": "2.24.0.0"}})
    same = {"stack": other, "source": "https://me:secret@github.com/vllm-project/vllm.git", "venv": "/srv/venv"}
    assert action.folder_name({**arguments, **same}) == action.folder_name(arguments)


def test_wheels_that_were_built_before_are_found() -> None:
    before = {"stack": IN_TREE, "python_version": "3.11", "architecture": "x86_64"}
    assert action.folder_name(before) == "vllm-0.9.2-neuron218-cp311-x86_64-8c808e98"
    assert action.folder_name({**before, "of": "vllm"}) == action.folder_name(before)
    mirror = {"source": "https://mirror.example/vllm.git", "source_checksum": "1" * 64}
    assert action.folder_name({**before, **mirror}) == "vllm-0.9.2-neuron218-cp311-x86_64-5c7542f5"


def for_plugins(**overrides: Any) -> dict[str, Any]:
    stack = stacks.resolve("vllm-0.11.0", overrides=overrides)
    return {"path": "", "stack": stack, "venv": "/opt/venv", "python_version": "3.11", "architecture": "x86_64"}


def test_the_compiler_does_not_decide_on_a_vllm_for_no_device() -> None:
    name = action.folder_name(for_plugins())
    assert name.startswith("vllm-0.11.0-empty-cp311-x86_64-")
    assert action.folder_name(for_plugins(python_packages={"neuronx-cc": "2.23.6484.0"})) == name
    assert action.folder_name(for_plugins(python_packages={"torch": "2.9.0"})) != name
    assert action.folder_name(for_plugins(plugin={"commit": "d" * 40})) == name


@pytest.mark.parametrize(
    "change",
    [
        {"plugin": {"version": "0.2.3"}},
        {"plugin": {"ref": "main"}},
        {"plugin": {"commit": "d" * 40}},
        {"plugin": {"source": "https://mirror.example/vllm-neuron.git"}},
        {"plugin": {"build_requirements": ["setuptools"]}},
        {"plugin": {"name": "vllm-other"}},
    ],
)
def test_what_decides_on_a_plugin_decides_on_its_folder(change: dict[str, Any]) -> None:
    name = action.folder_name({**for_plugins(), "of": "plugin"})
    assert name.startswith("vllm-neuron-0.2.2+lts-cp311-x86_64-")
    assert action.folder_name({**for_plugins(**change), "of": "plugin"}) != name
    for more in ({"python_version": "3.10"}, {"architecture": "aarch64"}, {"source_checksum": "1" * 64}):
        assert action.folder_name({**for_plugins(), "of": "plugin", **more}) != name


def test_what_does_not_decide_on_a_plugin_does_not() -> None:
    other = for_plugins(
        vllm={"ref": "main", "commit": "d" * 40},
        plugin={"entry_point": "other", "platform": "a.B", "modules": []},
        python_packages={"neuronx-cc": "2.23.6484.0", "torch": "2.9.0"},
    )
    same = {**other, "of": "plugin", "source": "https://me:secret@github.com/vllm-project/vllm-neuron.git"}
    assert action.folder_name(same) == action.folder_name({**for_plugins(), "of": "plugin"})


PLUGIN_COMMIT = stacks.resolve("vllm-0.11.0")["plugin"]["commit"]


def builds_what_is_asked_for(host: Host) -> dict[str, Any]:
    """Answer as the module does when it has built vLLM for no device, or its plugin."""
    plugin = host.sent.get("of") == "plugin"
    name, version = ("vllm_neuron", "0.2.2+lts") if plugin else ("vllm", "0.11.0+empty")
    wheel = host.folder / f"{name}-{version}-py3-none-any.whl"
    wheel.write_text(name)
    facts = {"sha256": module.sha256(str(wheel)), "version": version, "requirements": []}
    return {"changed": True, "wheel": wheel.name, "commit": PLUGIN_COMMIT if plugin else "e" * 40, **facts}


def test_a_plugin_is_kept_beside_vllm(tmp_path: Path) -> None:
    host = make_hosts(tmp_path, builds_what_is_asked_for, 1)[0]
    mirror = {"mirror": str(tmp_path / "mirror"), "mirror_write": True}
    arguments = {**for_plugins(), **mirror, "path": str(tmp_path / "store")}
    vllm, plugin = host.go(arguments), host.go({**arguments, "of": "plugin"})
    assert (vllm["wheel"], plugin["wheel"], plugin.get("version")) == (
        "vllm-0.11.0+empty-py3-none-any.whl",
        "vllm_neuron-0.2.2+lts-py3-none-any.whl",
        "0.2.2+lts",
    ), plugin
    manifest = json.loads((Path(plugin["directory"]) / wheel_store.MANIFEST).read_text())
    assert manifest["source"] == "https://github.com/vllm-project/vllm-neuron.git"
    assert (manifest["ref"], manifest["commit"]) == ("0.2.2+lts", PLUGIN_COMMIT)
    assert host.sent["build_lock"] == build_tools.lock(arguments["stack"]["plugin"]["build_requirements"], "3.11")
    for path in (tmp_path / "store", tmp_path / "another controller"):
        again = [host.go({**arguments, "path": str(path), "of": of}) for of in ("vllm", "plugin")]
        assert [answer["wheel"] for answer in again] == [vllm["wheel"], plugin["wheel"]]
        assert {answer["changed"] for answer in again} == {path.name != "store"}, "what is there is not fetched again"
    assert host.calls == 2


def test_a_plugins_tag_is_what_it_was_when_the_plugin_was_built(tmp_path: Path) -> None:
    host = make_hosts(tmp_path, builds_what_is_asked_for, 1)[0]
    arguments = {**for_plugins(), "path": str(tmp_path / "store"), "source": "https://mirror.example/both.git"}
    arguments["stack"]["vllm"]["ref"] = arguments["stack"]["plugin"]["ref"] = "v0.11.0"
    host.go(arguments)
    host.go({**arguments, "of": "plugin"})
    assert host.sent["locked_commit"] == "", "it is vLLM that was built from this ref"
    host.go({**arguments, "of": "plugin", "python_version": "3.10"})
    assert host.sent["locked_commit"] == PLUGIN_COMMIT


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "0.2.2", "wheel": "vllm_neuron-0.2.2-py3-none-any.whl"},
        {"version": "0.2.2+lts.empty", "wheel": "vllm_neuron-0.2.2+lts.empty-py3-none-any.whl"},
        {"wheel": "vllm-0.2.2+lts-py3-none-any.whl"},
        {"commit": "d" * 40},
        {"commit": ""},
    ],
)
def test_nothing_is_fetched_where_it_is_another_plugin(tmp_path: Path, changed: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, lambda host: {**builds_what_is_asked_for(host), **changed}, 1)[0]
    answer = host.go({**for_plugins(), "path": str(tmp_path / "store"), "of": "plugin"})
    assert answer["failed"] and "it is not the wanted one" in answer["msg"]
    assert host.fetched == []


def test_missing_arguments_are_named(tmp_path: Path) -> None:
    answer = Host("one", builds, tmp_path).go({"path": "/srv/wheels"})
    assert answer["msg"] == "missing required arguments: architecture, python_version, stack, venv"


def test_the_manifest_says_where_the_wheel_comes_from(tmp_path: Path, arguments: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    answer = host.go({**arguments, "source": "https://me:secret@mirror.example/vllm.git"})
    manifest = json.loads((Path(answer["directory"]) / wheel_store.MANIFEST).read_text())
    assert manifest["source"] == "https://mirror.example/vllm.git"
    assert (manifest["ref"], manifest["commit"]) == ("v0.9.2", COMMIT)


def answers(**changed: Any) -> Any:
    """Return a host's answer that differs from that of a build."""

    def answer(host: Host) -> dict[str, Any]:
        return {name: value for name, value in {**builds(host), **changed}.items() if value is not None}

    return answer


@pytest.mark.parametrize(
    "changed",
    [
        {"wheel": None, "path": "/srv/a\\'\" /anywhere\n!id > /owned #"},
        {"wheel": "../../../.ssh/authorized_keys"},
        {"wheel": "vllm-0.9.2+neuron218-py3-none-any.whl\n!id"},
        {"wheel": "vllm-0.9.2+neuron218-py3-none-any.whl' /x"},
        {"wheel": "vllm-0.9.1+neuron218-py3-none-any.whl"},
        {"wheel": "torch-0.9.2+neuron218-py3-none-any.whl"},
        {"wheel": 1},
        {"version": "0.9.1+neuron218"},
        {"version": "0.9.2+neuron218\n"},
        {"commit": "d" * 40},
        {"commit": "a5dd03c1e"},
        {"commit": ""},
        {"commit": ["x"]},
        {"sha256": "0" * 63},
        {"sha256": "0" * 63 + "\n"},
        {"sha256": None},
        {"requirements": None},
        {"requirements": "fastapi"},
        {"requirements": ["fastapi\n--index-url http://x"]},
        {"requirements": ["-r /etc/passwd"]},
        {"requirements": ["evil @ http://x/evil.whl"]},
        {"requirements": {"a": 1}},
    ],
)
def test_nothing_is_fetched_from_a_host_that_says_something_else(
    tmp_path: Path, arguments: dict[str, Any], changed: dict[str, Any]
) -> None:
    host = make_hosts(tmp_path, answers(**changed), 1)[0]
    answer = host.go(arguments)
    assert answer["failed"]
    assert "it is not the wanted one" in answer["msg"] and "\n" not in answer["msg"]
    assert host.fetched == []
    assert [path for path in Path(arguments["path"]).rglob("*") if path.suffix != ".turn"] == []


def test_a_host_decides_on_nothing_of_the_result(tmp_path: Path, arguments: dict[str, Any]) -> None:
    more = {"add_host": {"host_name": "x"}, "ansible_facts": {"y": 1}, "directory": "/etc", "path": "/etc/passwd"}
    answer = make_hosts(tmp_path, answers(**more), 1)[0].go(arguments)
    assert set(answer) == {*wheel_store.FIELDS, "built", "changed", "directory"}
    assert answer["directory"].startswith(arguments["path"])


def test_a_hosts_message_is_text_and_not_long(tmp_path: Path, arguments: dict[str, Any]) -> None:
    def fails_loudly(_host: Host) -> dict[str, Any]:
        return {"failed": True, "msg": "a\x1b[2J\x07\u202eb" + "x" * 100000, "add_host": {"host_name": "x"}}

    answer = make_hosts(tmp_path, fails_loudly, 1)[0].go(arguments)
    assert answer["msg"].startswith("a?[2J??b") and len(answer["msg"]) < 10000
    assert "add_host" not in answer
    host = make_hosts(tmp_path / "store", lambda _host: {"failed": True, "msg": {"a": 1}}, 1)[0]
    assert "gave no reason" in host.go({**arguments, "path": str(tmp_path / "other")})["msg"]


@pytest.mark.parametrize(
    "change",
    [
        {"python_version": "../../../elsewhere"},
        {"architecture": "../x"},
        {"architecture": None},
        {"stack": stacks.resolve(overrides={"vllm": {"version": "0.9.2/../../x"}})},
        {"stack": stacks.resolve(overrides={"vllm": {"suffix": "../x"}})},
        {"build_path": "relative"},
        {"build_path": "/a'\n!id"},
        {"build_path": "/srv/../etc"},
        {"build_path": "$HOME/x"},
        {"stack": "vllm-0.9.2"},
        {"stack": {}},
        {"stack": {}, "of": "plugin"},
        {"of": "torch"},
        {"of": ["plugin"]},
        {"stack": stacks.resolve("vllm-0.11.0", overrides={"plugin": {"name": "../x"}}), "of": "plugin"},
        {"stack": stacks.resolve("vllm-0.11.0", overrides={"plugin": {"version": "0.2/../x"}}), "of": "plugin"},
    ],
)
def test_a_part_of_a_path_has_its_form(tmp_path: Path, arguments: dict[str, Any], change: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    assert host.go({**arguments, **change})["failed"]
    assert host.calls == 0
    assert {path.name for path in tmp_path.iterdir()} <= {"host0", "store"}


@pytest.mark.parametrize(
    "change", [{"commit": "d" * 40}, {"version": "0.9.1+neuron218", "wheel": "vllm-0.9.1+neuron218-py3-none-any.whl"}]
)
@pytest.mark.parametrize("place", ["store", "mirror"])
def test_a_kept_wheel_is_that_of_the_stack(
    tmp_path: Path, arguments: dict[str, Any], change: dict[str, str], place: str
) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    mirror = tmp_path / "mirror"
    host.go({**arguments, "mirror": str(mirror), "mirror_write": True})
    manifest = next((tmp_path / place).rglob(wheel_store.MANIFEST))
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    if place == "store":
        assert host.go(arguments)["built"]
    else:
        answer = host.go({**arguments, "mirror": str(mirror), "path": str(tmp_path / "other")})
        assert answer["failed"] and "not that of the wanted wheel" in answer["msg"]
        assert host.calls == 1


def test_a_mirror_that_was_away_gets_the_wheel_later(tmp_path: Path, arguments: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    mirror = tmp_path / "mirror"
    mirror.write_text("no folder")
    writing = {**arguments, "mirror": str(mirror), "mirror_write": True}
    assert host.go(writing)["failed"]
    mirror.unlink()
    answer = host.go(writing)
    assert (answer["built"], answer["changed"]) == (False, True)
    assert list(mirror.glob("*/manifest.json"))
    assert host.go(writing)["changed"] is False


def test_plain_http_is_refused_before_anything_is_read_or_written(tmp_path: Path, arguments: dict[str, Any]) -> None:
    host = make_hosts(tmp_path, builds, 1)[0]
    answer = host.go({**arguments, "mirror": "http://127.0.0.1:9/wheels"})
    assert answer["failed"] and "is plain http" in answer["msg"]
    assert not Path(arguments["path"]).exists()


def test_every_stack_has_a_lock_of_its_build_tools() -> None:
    for name, entry in stacks.load()["stacks"].items():
        plugin = entry.get("plugin", {}).get("build_requirements")
        for python, needed in itertools.product(entry["pythons"], [entry["vllm"]["build_requirements"], plugin or []]):
            packages = forms.lock(build_tools.lock(needed, python))
            for requirement in map(Requirement, needed):
                assert requirement.specifier.contains(packages[requirement.name][0]), f"{name} on {python}"
    assert build_tools.lock(["setuptools"], "3.11") == ""


def test_the_builds_tools_are_those_of_the_lock(parameters: dict[str, Any], tmp_path: Path) -> None:
    uv = Path(module.have_uv())
    uv.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/said; cp "$(eval echo \\${{$#}})" {tmp_path}/lock; exit 3\n')
    answer = run(
        {**parameters, "sources": {"wheelhouse": "/srv/wheelhouse", "torch_index_url": "http://torch.invalid"}}
    )
    assert answer["failed"]
    said = (tmp_path / "said").read_text()
    assert "--require-hashes --no-deps --only-binary :all: --no-index --find-links /srv/wheelhouse -r " in said
    assert forms.lock((tmp_path / "lock").read_text()) == forms.lock(parameters["build_lock"])


@pytest.mark.parametrize("text", ["", "setuptools==79.0.1\n", "-r /etc/passwd\n", "setuptools\n"])
def test_tools_without_hashes_are_not_installed(parameters: dict[str, Any], text: str) -> None:
    assert run({**parameters, "build_lock": text})["failed"]


def test_a_build_imports_nothing_out_of_the_folder_of_the_sources(parameters: dict[str, Any], upstream: Path) -> None:
    for name in ("zipfile.py", "setuptools.py"):
        (upstream / name).write_text("raise SystemExit('taken from the sources')")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-q", "-m", "shadows")
    git(upstream, "tag", "-f", "v0.9.2")
    answer = run(parameters)
    assert not answer["failed"], answer


def test_an_environment_that_is_not_ready_touches_nothing(parameters: dict[str, Any], tmp_path: Path) -> None:
    models = tmp_path / "srv" / "vllm" / "models"
    models.mkdir(parents=True)
    (models / "llama").write_text("weights")
    answer = run({**parameters, "venv": "/nonexistent", "build_path": str(tmp_path / "srv")})
    assert "Run the role neuronops.vllm.neuron_venv first" in answer["msg"]
    assert [path.name for path in (tmp_path / "srv").iterdir()] == ["vllm"]


@pytest.mark.parametrize("broken", [False, True])
def test_what_is_not_ours_stays_in_the_build_path(parameters: dict[str, Any], tmp_path: Path, broken: bool) -> None:
    ours = Path(parameters["build_path"], ".neuronops-build")
    for kept in ("../vllm/models/llama", "vllm-mine/weights", "wheel-mine/x", "vllm-alive/x"):
        (ours / kept).parent.mkdir(parents=True)
        (ours / kept).write_text("kept")
    alive = {"made by": module.MAKER, "pid": os.getpid(), "started": module.started(os.getpid())}
    (ours / "vllm-alive" / module.Workplace.MARK).write_text(json.dumps(alive))
    (ours / "vllm-mine" / module.Workplace.MARK).write_text("[]")
    (ours / "vllm-link").symlink_to(tmp_path)
    if broken:
        (tmp_path / "backend").write_text("raise SystemExit(1)")
    assert run(parameters)["failed"] is broken
    left = sorted(str(path.relative_to(ours)) for path in ours.rglob("*") if path.is_file())
    assert {"vllm-mine/weights", "wheel-mine/x", "vllm-alive/x"} <= set(left)
    assert (ours / "../vllm/models/llama").read_text() == "kept"
    assert (ours / "vllm-link").is_symlink()


@pytest.mark.parametrize("age", [0, 7200])
def test_a_wheel_that_nobody_fetched_goes_after_an_hour(parameters: dict[str, Any], age: int) -> None:
    with module.Workplace(parameters["build_path"]) as workplace:
        left = Path(workplace.new("wheel-left"))
    (left / workplace.MARK).write_text(json.dumps({"made by": module.MAKER, "pid": 1, "started": "none"}))
    os.utime(left, (time.time() - age, time.time() - age))
    assert not run(parameters)["failed"]
    assert left.exists() is (age == 0)


@pytest.mark.parametrize("how", ["link", "writable"])
def test_a_folder_that_others_may_write_to_is_not_built_in(
    parameters: dict[str, Any], tmp_path: Path, how: str
) -> None:
    Path(parameters["build_path"]).mkdir()
    (tmp_path / "elsewhere").mkdir()
    folder = Path(parameters["build_path"], ".neuronops-build")
    if how == "link":
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert "others than the user of this build may write to it" in run(parameters)["msg"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_two_builds_at_a_time_wait_and_name_the_other(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.8 22")
    warnings: list[str] = []
    monkeypatch.setattr(FakeModule, "warn", lambda _self, text: warnings.append(text), raising=False)
    with module.Workplace(parameters["build_path"]) as workplace:
        workplace.lock(0)
        answer = run({**parameters, "lock_timeout": 1})
        assert answer["failed"]
        assert f"process {os.getpid()}, since 2" in answer["msg"] and "started from 192.0.2.7" in answer["msg"]
        threading.Timer(1, workplace.file.close).start()
        assert not run({**parameters, "lock_timeout": 20})["failed"]
    assert f"process {os.getpid()}" in warnings[0]
    assert (Path(workplace.path) / "lock").stat().st_mode & 0o777 == 0o600


def test_two_controllers_that_build_on_one_host_each_get_their_wheel(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    """With real processes, of which one waits for the other and says for whom."""
    (tmp_path / "backend").write_text("import time; time.sleep(1.5)\n" + BACKEND)
    code = """
import json, sys
from ansible_collections.neuronops.vllm.plugins.modules import vllm_wheel as module
parameters, uv = json.loads(sys.argv[1])
warnings = []
class FakeModule:
    check_mode = False
    def __init__(self, argument_spec, **_options):
        self.params = {**{name: option.get("default") for name, option in argument_spec.items()}, **parameters}
    def warn(self, text):
        warnings.append(text)
    def exit_json(self, **answer):
        print(json.dumps({**answer, "pid": module.os.getpid(), "warnings": warnings}))
    def fail_json(self, msg):
        sys.exit(msg)
module.AnsibleModule = FakeModule
module.have_uv = lambda *_arguments: uv
module.main()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / ".build" / "collections")}
    environment.pop("SSH_CONNECTION", None)
    processes = []
    for who in ("alice", "bob"):
        given = {**parameters, "result_folder": f"wheel-of-{who}", "started_by": f"{who} on {who}s-laptop"}
        command = [sys.executable, "-c", code, json.dumps([given, module.have_uv()])]
        processes.append(subprocess.Popen(command, env=environment, stdout=-1, text=True))
    answers = {
        who: json.loads(process.communicate(timeout=60)[0].splitlines()[-1])
        for who, process in zip(("alice", "bob"), processes, strict=True)
    }
    assert left_in(parameters) == ["lock", "wheel-of-alice", "wheel-of-bob"]
    for who, answer in answers.items():
        assert built({**parameters, "result_folder": f"wheel-of-{who}"}, answer).exists()
    (waited,) = [who for who, answer in answers.items() if answer["warnings"]]
    other = "bob" if waited == "alice" else "alice"
    assert f"process {answers[other]['pid']}, since 2" in answers[waited]["warnings"][0]
    assert answers[waited]["warnings"][0].endswith(f", started by {other} on {other}s-laptop")


def test_others_can_fetch_the_wheel_whatever_the_umask_is(parameters: dict[str, Any]) -> None:
    before = os.umask(0o077)
    try:
        answer = run({**parameters, "build_path": parameters["build_path"] + "/below/it"})
    finally:
        os.umask(before)
    wheel = built({**parameters, "build_path": parameters["build_path"] + "/below/it"}, answer)
    assert wheel.stat().st_mode & 0o777 == 0o644
    for folder in list(wheel.parents)[:5]:
        assert folder.stat().st_mode & 0o777 == 0o755, folder


def test_a_package_is_made_within_the_sources_alone(parameters: dict[str, Any], upstream: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (upstream / "vllm" / "neuron").symlink_to(tmp_path / "elsewhere")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-q", "-m", "a link")
    git(upstream, "tag", "-f", "v0.9.2")
    answer = run(with_vllm(parameters, packages_without_init=["vllm/neuron"]))
    assert "is a link that leads out of them" in answer["msg"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
