# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recorded of an environment is what is read of it, at once or not at all, and never a part."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import environment as observed
from ansible_collections.neuronops.vllm.plugins.module_utils import files, release
from ansible_collections.neuronops.vllm.plugins.modules import release_record

INPUTS, OTHER = "a" * 64, "b" * 64
LAYERS = ["neuron_venv", "transformers_neuronx", "vllm"]
STACK = {"name": "vllm-0.9.2", "sdk": "2.22.0", "pythons": ["3.10"], "vllm": {"version": "0.9.2", "commit": None}}
ID = "vllm-0.9.2-0a1b2c3d"


def layer(name: str = "vllm", **changed: Any) -> dict[str, Any]:
    given = {"name": name, "inputs": INPUTS, "stack": "vllm-0.9.2", "packages": {name: "1.0"}, "proof": ["it ran"]}
    return {**given, **changed}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of the records of something that looks like an environment."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    return tmp_path / "venv" / "neuronops"


@pytest.fixture
def record(own: Path, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def run(**arguments: Any) -> dict[str, Any]:
        return run_module(release_record, path=str(own.parent), **arguments)

    return run


@pytest.fixture
def complete(record: Callable[..., dict[str, Any]]) -> None:
    """All layers are recorded, and the release of them."""
    for name in LAYERS:
        assert record(layer=layer(name))["written"] == [f"{name}.json"]
    assert record(release={"id": ID, "stack": STACK}, layers=LAYERS)["written"] == ["release.json"]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_layer_is_recorded_once_for_everybody_to_read(own: Path, record: Callable[..., dict[str, Any]]) -> None:
    os.umask(0o077)
    try:
        wanted = layer(commit="c" * 40, source="https://example.com/vllm.git", files={"/a/b.whl": OTHER}, version="1.0")
        first = record(layer=wanted)
    finally:
        os.umask(0o022)
    assert (first["changed"], first["written"], first["release"]) == (True, ["vllm.json"], None)
    assert read(own / "vllm.json") == {
        "schema": 1,
        "role": "vllm",
        **{key: value for key, value in wanted.items() if key != "name"},
    }
    assert (own / "vllm.json").stat().st_mode & 0o777 == 0o644
    assert own.stat().st_mode & 0o777 == 0o755
    assert first["diff"][0]["after"] == (own / "vllm.json").read_text()
    assert not record(layer=wanted)["changed"]
    assert record(layer={**wanted, "inputs": OTHER})["changed"]
    assert sorted(path.name for path in own.iterdir()) == ["vllm.json"]  # nothing is left of the way there


def test_what_was_recorded_is_what_is_observed(own: Path, record: Callable[..., dict[str, Any]]) -> None:
    record(layer=layer(files={"/gone": OTHER}))
    found = observed.observe(str(own.parent))
    assert found["manifests"] == {"vllm": read(own / "vllm.json")}
    assert (found["changed_files"], found["ignored"], found["release"]) == (["/gone"], [], None)


def test_a_mode_that_keeps_others_out_is_mended(own: Path, record: Callable[..., dict[str, Any]]) -> None:
    record(layer=layer())
    (own / "vllm.json").chmod(0o600)
    assert record(layer=layer())["changed"]
    assert (own / "vllm.json").stat().st_mode & 0o777 == 0o644


def test_check_mode_writes_nothing(own: Path, record: Callable[..., dict[str, Any]]) -> None:
    found = record(check=True, layer=layer(), release={"id": ID, "stack": STACK}, layers=LAYERS)
    assert (found["changed"], found["written"], found["release"]) == (True, ["vllm.json", "release.json"], None)
    assert not own.exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inputs": "x"}, "inputs of layer vllm is 'x'"),
        ({"name": "../vllm"}, "name of the layer is"),
        ({"name": "release"}, "the release's own file"),
        ({"packages": {"a b": "1"}}, "packages of the manifest of vllm"),
        ({"packages": {"a": "1\n2"}}, "packages of the manifest of vllm"),
        ({"files": {"a.whl": OTHER}}, "which is no path"),
        ({"proof": ["two\nlines"]}, "proof of layer vllm"),
        ({"commit": "main"}, "commit of layer vllm"),
        ({"source": "https://user:secret@example.com/vllm.git"}, "holds a user or a password"),
    ],
)
def test_what_has_not_its_form_is_not_recorded(
    changed: dict[str, Any], words: str, own: Path, record: Callable[..., dict[str, Any]]
) -> None:
    found = record(layer=layer(**changed))
    assert found["failed"]
    assert words in found["msg"]
    assert "Nothing was recorded" in found["msg"]
    assert "secret" not in found["msg"]
    assert not own.exists()


def test_where_there_is_no_environment_nothing_is_recorded(
    tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    found = run_module(release_record, path=str(tmp_path / "none"), layer=layer())
    assert found["failed"]
    assert "neuronops.vllm.neuron_venv makes it" in found["msg"]
    assert not (tmp_path / "none").exists()


def test_a_release_is_its_stack_and_its_layers(complete: None, own: Path) -> None:
    written = read(own / "release.json")
    assert (written["schema"], written["id"], written["stack"]) == (1, ID, STACK)
    assert written["layers"] == [
        {
            "name": name,
            "inputs": INPUTS,
            "lock_sha256": None,
            "packages": {name: "1.0"},
            "files": {},
            "proof": ["it ran"],
        }
        for name in LAYERS
    ]
    found = observed.observe(str(own.parent))
    assert found["release"] == {
        "schema": 1,
        "id": ID,
        "stack": "vllm-0.9.2",
        "completed_at": written["completed_at"],
        "layers": LAYERS,
    }
    assert (sorted(found["manifests"]), found["ignored"]) == (LAYERS, [])


def test_a_release_keeps_the_time_that_it_was_completed(
    complete: None, own: Path, record: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(own / "release.json")
    monkeypatch.setattr(release, "now", lambda: "2099-01-01T00:00:00Z")
    again = record(release={"id": ID, "stack": STACK}, layers=LAYERS)
    assert not again["changed"]
    assert again["release"]["completed_at"] == before["completed_at"]
    assert read(own / "release.json") == before
    other = record(release={"id": ID, "stack": {**STACK, "sdk": "2.23.0"}}, layers=LAYERS)
    assert (other["changed"], other["release"]["completed_at"]) == (True, "2099-01-01T00:00:00Z")


def test_a_layer_and_the_release_are_recorded_together(own: Path, record: Callable[..., dict[str, Any]]) -> None:
    found = record(layer=layer(), release={"id": ID, "stack": STACK}, layers=["vllm"])
    assert found["written"] == ["vllm.json", "release.json"]
    assert found["release"]["layers"] == ["vllm"]


def test_a_release_without_one_of_its_layers_is_refused(
    complete: None, own: Path, record: Callable[..., dict[str, Any]]
) -> None:
    (own / "release.json").unlink()
    (own / "vllm.json").write_text((own / "vllm.json").read_text()[:20])
    found = record(release={"id": ID, "stack": STACK}, layers=LAYERS)
    assert found["failed"]
    assert "the layer vllm has no record that is understood" in found["msg"]
    assert "vllm.json counts as none" in found["msg"]
    assert not (own / "release.json").exists()
    (own / "neuron_venv.json").unlink()
    found = record(release={"id": ID, "stack": STACK}, layers=LAYERS)
    assert "the layers neuron_venv, vllm have no record" in found["msg"]


def test_a_release_is_none_when_a_layer_is_another_by_now(
    complete: None, own: Path, record: Callable[..., dict[str, Any]]
) -> None:
    record(layer=layer(inputs=OTHER))
    found = observed.observe(str(own.parent))
    assert found["release"] is None
    assert found["ignored"] == [
        f"{own}/release.json counts as none, and the release as not complete: what is recorded of vllm is not what the "
        "release was completed with"
    ]
    assert record(release={"id": ID, "stack": STACK}, layers=LAYERS)["changed"]
    assert observed.observe(str(own.parent))["release"]["id"] == ID
    (own / "neuron_venv.json").unlink()
    assert "recorded of neuron_venv is not" in observed.observe(str(own.parent))["ignored"][0]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": True},
        {"id": "../one"},
        {"id": ""},
        {"completed_at": "yesterday"},
        {"stack": {"name": ["a"]}},
        {"stack": []},
        {"layers": {}},
        {"layers": [1]},
        {"more": 1},
    ],
)
def test_a_release_that_is_not_understood_counts_as_none_and_is_said(
    change: dict[str, Any], complete: None, own: Path
) -> None:
    (own / "release.json").write_text(json.dumps({**read(own / "release.json"), **change}))
    found = observed.observe(str(own.parent))
    assert found["release"] is None
    assert len(found["ignored"]) == 1
    assert "release.json counts as none" in found["ignored"][0]
    assert sorted(found["manifests"]) == LAYERS


@pytest.mark.parametrize("content", [b"", b"\0\0", b"{", b"[" * 100000, b"\xff", b"null"])
def test_a_release_that_was_cut_off_counts_as_none(content: bytes, complete: None, own: Path) -> None:
    (own / "release.json").write_bytes(content)
    found = observed.observe(str(own.parent))
    assert (found["release"], len(found["ignored"])) == (None, 1)


def test_a_record_of_a_newer_version_is_not_understood(own: Path, record: Callable[..., dict[str, Any]]) -> None:
    record(layer=layer())
    (own / "vllm.json").write_text(json.dumps({**read(own / "vllm.json"), "schema": 2}))
    found = observed.observe(str(own.parent))
    assert found["manifests"] == {}
    assert "has the schema 2, and this version of the collection understands 1" in found["ignored"][0]


def test_a_record_of_an_older_version_is_understood(own: Path) -> None:
    own.mkdir()
    old = {"role": "vllm", "packages": {"vllm": "0.9.2+neuron218"}}
    (own / "vllm.json").write_text(json.dumps(old))
    assert observed.observe(str(own.parent))["manifests"] == {"vllm": old}


def test_a_write_that_fails_leaves_what_was_there(
    own: Path, record: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(layer=layer())
    before = (own / "vllm.json").read_text()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    found = record(layer=layer(inputs=OTHER))
    assert found["failed"]
    assert "No space left on device" in found["msg"]
    assert (own / "vllm.json").read_text() == before
    assert [path.name for path in own.iterdir()] == ["vllm.json"]
