# SPDX-License-Identifier: GPL-3.0-or-later
"""Where locks and wheels are kept: said before any work, and shared by controllers that know nothing of each other."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible_collections.neuronops.vllm.plugins.action import options as options_action
from ansible_collections.neuronops.vllm.plugins.action import python_lock, vllm_wheel
from ansible_collections.neuronops.vllm.plugins.plugin_utils import places, stacks, state
from ansible_collections.neuronops.vllm.plugins.plugin_utils.places import Place, StoreError, working_folder
from ansible_collections.neuronops.vllm.plugins.plugin_utils.wheel_store import MANIFEST
from botocore.exceptions import ClientError
from moto import mock_aws

BUCKET = "s3://fleet/neuronops"
LAST = "Set neuron_state to a folder on the controller that lasts"


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of S3; to make one takes as long as all that it does here."""
    with mock_aws():
        yield boto3.client("s3", region_name="us-east-1")


@pytest.fixture
def bucket(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client, with an empty bucket."""
    monkeypatch.setattr(boto3, "client", lambda _service, **_options: s3)
    s3.create_bucket(Bucket="fleet")
    yield s3
    for name in names(s3):
        s3.delete_object(Bucket="fleet", Key=name)
    s3.delete_bucket(Bucket="fleet")


@pytest.fixture
def new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Begin a run of Ansible: its own temporary folder is all that it has."""

    def begin(name: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setattr(places.constants, "DEFAULT_LOCAL_TMP", str(tmp_path / name))

    monkeypatch.setattr(python_lock.ActionBase, "run", lambda *_arguments, **_options: {})
    monkeypatch.setattr(python_lock.task_environment, "variables", lambda _action: {})
    begin("first run")
    return begin


def names(client: Any) -> list[str]:
    return [entry["Key"] for entry in client.list_objects_v2(Bucket="fleet").get("Contents", [])]


def look(place: str, check_mode: bool = False, **variables: Any) -> tuple[list[str], list[str]]:
    wrong, warnings = state.look({"lock_path": place}, variables, "vllm_", check_mode)
    return wrong, warnings


# Folders of the controller


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a file system where nobody writes, root neither."""
    folder = tmp_path / "project" / "locks"
    folder.mkdir(parents=True)

    def refuses(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(state.tempfile, "TemporaryFile", refuses)
    return folder


def test_a_folder_that_cannot_be_written_to_is_told_with_what_to_set(read_only: Path) -> None:
    wrong, warnings = look(str(read_only / "not there yet"))
    assert warnings == []
    assert f"{read_only} cannot be written to (Read-only file system)" in wrong[0]
    assert "vllm_lock_path" in wrong[0] and LAST in wrong[0]


def test_locks_in_a_read_only_checkout_are_used(read_only: Path) -> None:
    (read_only / "a.txt").touch()
    wrong, warnings = look(str(read_only))
    assert wrong == []
    assert "where nothing can be added" in warnings[0] and LAST in warnings[0]


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_folder_that_is_looked_at_is_left_as_it_is(tmp_path: Path, check_mode: bool) -> None:
    place = tmp_path / "state" / "locks"
    assert look(str(place), check_mode, neuron_state=str(tmp_path / "state")) == ([], [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "ci", "kind", "why"),
    [
        ({"awx_job_id": 7}, "", "ext4", "this job of AWX"),
        ({}, "true", "ext4", "a CI job"),
        ({}, "", "overlay", "of a container"),
        ({}, "", "tmpfs", "in memory"),
        ({}, "", "ext4", ""),
        ({"neuron_state": "/srv"}, "true", "overlay", ""),
    ],
)
def test_a_default_place_that_does_not_last_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], ci: str, kind: str, why: str
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(state, "file_system", lambda _folder: kind)
    wrong, warnings = look(str(tmp_path / ".neuronops" / "locks"), **variables)
    assert wrong == []
    assert [why in warning and LAST in warning for warning in warnings] == ([True] if why else [])
    assert look(str(tmp_path / "of my own"), **variables) == ([], []), "named by the user, who knows"


def test_the_type_of_a_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "overlay / overlay rw 0 0\n/dev/sda1 /run\\040ner ext4 rw 0 0\ntmpfs /run\\040ner/tmp tmpfs rw 0 0\n"
    )
    found = [state.file_system(Path(path), mounts) for path in ("/srv/x", "/run ner/x", "/run ner/tmp/x", "/run nerd")]
    assert found == ["overlay", "ext4", "tmpfs", "overlay"]
    assert state.file_system(Path("/srv"), tmp_path / "none") == "", "as on a Mac"


@pytest.mark.parametrize("place", ["https://mirror.example/locks", "s3:///locks", "ftp://x/y"])
def test_what_is_neither_a_folder_nor_a_bucket_is_refused(place: str) -> None:
    wrong, _warnings = look(place)
    assert "vllm_lock_path" in wrong[0] and "s3://BUCKET/PREFIX" in wrong[0]


def test_a_state_that_is_meant_for_roles_is_refused() -> None:
    wrong, _warnings = look("absent/locks", neuron_state="absent")
    assert "vllm_state=absent" in wrong[0]


class Checker(options_action.ActionModule):  # type: ignore[misc]  # ansible has no types
    """The action that checks the options of a role, with these variables."""

    def go(self, of: str, **variables: Any) -> dict[str, Any]:
        self._task = type("Task", (), {"args": {"of": of}, "check_mode": False})
        self._templar = type("Templar", (), {"template": lambda _self, value: value})()
        answer: dict[str, Any] = self.run(task_vars={"inventory_hostname": "host", **variables})
        return answer


def test_the_check_of_a_roles_options_asks_for_its_places(read_only: Path, new_run: Any) -> None:
    answer = Checker.__new__(Checker).go("neuron_venv", neuron_venv_lock_path=str(read_only))
    assert answer["failed"] and "Locks cannot be kept" in answer["msg"] and "Nothing was changed." in answer["msg"]
    for without in ({}, {"neuron_venv_lock_path": str(read_only), "neuron_venv_state": "absent"}):
        assert not Checker.__new__(Checker).go("neuron_venv", **without).get("failed"), without


# A bucket


def test_a_bucket_is_asked_whether_it_can_be_written_to(bucket: Any, new_run: Any) -> None:
    assert look(BUCKET, check_mode=True) == ([], []) and names(bucket) == [], "a check run writes nothing"
    new_run("another run")
    assert look(BUCKET) == ([], [])
    assert names(bucket) == [f"neuronops/{state.PROBE}"]
    bucket.delete_object(Bucket="fleet", Key=f"neuronops/{state.PROBE}")
    assert look(BUCKET) == ([], []) and names(bucket) == [], "once in a run"


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_bucket_that_is_not_there_is_told(bucket: Any, new_run: Any, check_mode: bool) -> None:
    wrong, _warnings = look("s3://none/x", check_mode)
    assert "vllm_lock_path" in wrong[0] and "NoSuchBucket" in wrong[0] and "`aws s3 ls s3://none/x/`" in wrong[0]


def test_a_bucket_that_may_only_be_read_is_told_or_used(
    bucket: Any, new_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_self: Place, _name: str, _content: bytes | Path, _first: bool) -> bool:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")

    monkeypatch.setattr(Place, "_s3_put", lambda self, *rest: self._s3(lambda *_client: denied(self, *rest)))
    wrong, _warnings = look(BUCKET)
    assert "s3:PutObject" in wrong[0] and LAST in wrong[0]
    bucket.put_object(Bucket="fleet", Key="neuronops/locks/a.txt", Body=b"")
    new_run("second run")
    wrong, warnings = look(BUCKET)
    assert wrong == [] and "where nothing can be added" in warnings[0]


def test_what_s3_needs_is_told(bucket: Any, new_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    wrong, _warnings = look(BUCKET)
    assert "pip install boto3" in wrong[0]


# Locks in a bucket

LOCKED = "idna==3.10 \\\n    --hash=sha256:" + "a" * 64 + "\n"
OTHER = LOCKED.replace("a" * 64, "b" * 64)


class Resolver(python_lock.ActionModule):  # type: ignore[misc]  # ansible has no types
    """The action on one host, which resolves as told."""

    def __init__(self, resolve: Callable[[], str], **others: Any) -> None:
        self.resolve = resolve
        args = {
            "name": "demo",
            "path": f"{BUCKET}/locks",
            "requirements": ["idna"],
            "python": "/usr/bin/python3.11",
            "python_version": "3.11",
            "architecture": "x86_64",
            "resolver": "host",
            **others,
        }
        check = bool(args.pop("check_mode", False))
        self._task = type("Task", (), {"args": args, "check_mode": check, "diff": True, "async_val": 0})()
        self._connection = None

    def _execute_module(self, **_arguments: Any) -> dict[str, Any]:
        return {"lock": self.resolve()}

    def go(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.run(task_vars={"inventory_hostname": "host"})
        return answer


def never() -> str:
    raise AssertionError("resolved, though there is a lock")


def test_a_lock_of_one_controller_is_that_of_the_next(bucket: Any, new_run: Any) -> None:
    first = Resolver(lambda: LOCKED).go()
    assert (first["changed"], first["resolved"]) == (True, True), first
    assert first["path"].startswith(f"{BUCKET}/locks/demo-cp311-x86_64-") and names(bucket) == [first["path"][11:]]
    for check_mode in (True, False):
        new_run(f"elsewhere {check_mode}")
        again = Resolver(never, check_mode=check_mode).go()
        assert {**again, "diff": None} == {**first, "changed": False, "resolved": False, "diff": None}


def test_of_two_controllers_that_resolve_at_a_time_both_use_the_first_lock(bucket: Any, new_run: Any) -> None:
    def slow() -> str:
        new_run("the other controller")
        assert Resolver(lambda: LOCKED).go()["resolved"]
        new_run("first run")
        return OTHER

    second = Resolver(slow).go()
    assert "a" * 64 in second["lock"] and "b" * 64 not in second["lock"], second
    assert len(names(bucket)) == 1


def test_hosts_of_one_run_ask_the_bucket_once(bucket: Any, new_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(lambda: LOCKED).go()
    new_run("second run")
    asked: list[str] = []
    ask = Place.get_file

    def counted(place: Place, name: str, *rest: Any) -> Any:
        asked.append(name)
        return ask(place, name, *rest)

    monkeypatch.setattr(Place, "get_file", counted)
    threads = [threading.Thread(target=Resolver(never).go) for _host in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1


def test_a_refresh_takes_the_place_of_the_lock(bucket: Any, new_run: Any) -> None:
    Resolver(lambda: LOCKED).go()
    new_run("second run")
    answer = Resolver(lambda: OTHER, refresh=True).go()
    assert (answer["changed"], answer["resolved"]) == (True, True) and "a" * 64 in answer["diff"]["before"]
    new_run("third run")
    assert "b" * 64 in Resolver(never).go()["lock"]


@pytest.mark.parametrize("damage", ["cut off", "edited", "without digest"])
def test_a_lock_from_the_bucket_is_held_against_its_digest(bucket: Any, new_run: Any, damage: str) -> None:
    key = Resolver(lambda: LOCKED + LOCKED.replace("idna", "zope")).go()["path"][11:]
    text = bucket.get_object(Bucket="fleet", Key=key)["Body"].read().decode()
    if damage == "cut off":
        text = text[: text.index("zope==")]
    elif damage == "edited":
        text = text.replace("a" * 64, "c" * 64)
    else:
        text = text.split("\n", 1)[1]
    bucket.put_object(Bucket="fleet", Key=key, Body=text.encode())
    new_run("second run")
    answer = Resolver(never).go()
    assert answer["failed"] and f"s3://fleet/{key} cannot be used" in answer["msg"] and "digest" in answer["msg"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_refresh_mends_a_damaged_lock(bucket: Any, new_run: Any, check_mode: bool) -> None:
    key = Resolver(lambda: LOCKED).go()["path"][11:]
    bucket.put_object(Bucket="fleet", Key=key, Body=b"nonsense")
    new_run("second run")
    answer = Resolver(lambda: OTHER, refresh=True, check_mode=check_mode).go()
    assert answer.get("failed") is None and answer["changed"] and answer["resolved"] is not check_mode, answer
    new_run("third run")
    assert check_mode or "b" * 64 in Resolver(never).go()["lock"]


def test_a_lock_of_another_that_cannot_be_read_back_is_not_replaced_by_ones_own(
    bucket: Any, new_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Resolver(lambda: LOCKED).go()
    new_run("second run")
    monkeypatch.setattr(Place, "get_file", lambda *_arguments: None)
    answer = Resolver(lambda: OTHER).go()
    assert answer["failed"] and "s3:GetObject" in answer["msg"], answer


def test_a_place_is_the_same_however_its_slashes_are_written(bucket: Any, new_run: Any) -> None:
    first = Resolver(lambda: LOCKED, path="s3://fleet/neuronops//locks/").go()
    assert first["path"].startswith(f"{BUCKET}/locks/demo-"), first
    assert Resolver(never).go()["lock"] == first["lock"]
    new_run("second run")
    assert Resolver(never).go()["lock"] == first["lock"]


def test_variables_in_the_name_of_a_folder_are_those_of_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    assert working_folder("$PLACE/wheels") == tmp_path / "wheels"


def test_a_bucket_with_an_odd_name_is_told_as_that(bucket: Any, new_run: Any) -> None:
    answer = Resolver(never, path="s3://fleet neuronops/locks").go()
    assert answer["failed"] and "boto3 1.35.2" not in answer["msg"] and "bucket name" in answer["msg"], answer


def test_a_bucket_that_is_away_is_named_and_nothing_is_resolved(bucket: Any, new_run: Any) -> None:
    answer = Resolver(never, path="s3://none/locks").go()
    assert answer["failed"] and "s3://none/locks cannot be used" in answer["msg"]


# Wheels in a bucket


class Builder(vllm_wheel.ActionModule):  # type: ignore[misc]  # ansible has no types
    """The action on one host, which builds a wheel with this content."""

    def __init__(self, content: bytes, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.content, self.meanwhile, self.built = content, meanwhile, 0
        self._connection = self

    def fetch_file(self, _remote: str, local: str) -> None:
        Path(local).write_bytes(self.content)

    def _execute_module(self, module_name: str = "", **_rest: Any) -> dict[str, Any]:
        if module_name.endswith(".file"):
            return {}
        self.built += 1
        self.meanwhile()
        return {
            "wheel": "vllm-0.9.2+neuron218-py3-none-any.whl",
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "version": "0.9.2+neuron218",
            "commit": stacks.resolve("vllm-0.9.2")["vllm"]["commit"],
            "requirements": ["idna"],
        }

    def go(self, check_mode: bool = False, **others: Any) -> dict[str, Any]:
        args = {
            "path": f"{BUCKET}/wheels",
            "stack": stacks.resolve("vllm-0.9.2"),
            "venv": "/opt/venv",
            "python_version": "3.11",
            "architecture": "x86_64",
            **others,
        }
        self._task = type("Task", (), {"args": args, "check_mode": check_mode, "async_val": 0, "diff": False})
        answer: dict[str, Any] = self.run(task_vars={"inventory_hostname": "host"})
        return answer


def test_a_wheel_of_one_controller_is_that_of_the_next(bucket: Any, new_run: Any) -> None:
    assert Builder(b"one").go(check_mode=True)["changed"] and names(bucket) == []
    first = Builder(b"one").go()
    assert (first["changed"], first["built"]) == (True, True), first
    assert len(names(bucket)) == 2 and any(name.endswith(f"/{MANIFEST}") for name in names(bucket))
    new_run("second run")
    other = Builder(b"two")
    assert other.go(check_mode=True)["sha256"] == first["sha256"]
    second = other.go()
    assert (second["built"], other.built, second["sha256"]) == (False, 0, first["sha256"])
    assert not second["changed"]
    assert Path(second["directory"], second["wheel"]).read_bytes() == b"one"
    new_run("third run")
    assert Builder(b"three").go(build=False)["sha256"] == first["sha256"]


def test_of_two_controllers_that_build_at_a_time_both_use_the_first_wheel(bucket: Any, new_run: Any) -> None:
    def other_controller() -> None:
        new_run("the other controller")
        assert Builder(b"the first").go()["built"]
        new_run("first run")

    second = Builder(b"the second", other_controller).go()
    assert (second["changed"], second["built"]) == (True, False), second
    assert Path(second["directory"], second["wheel"]).read_bytes() == b"the first"


def test_a_branch_is_the_commit_that_the_bucket_knows(
    bucket: Any, new_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Builder(b"one").go()["commit"]
    new_run("second run")
    arguments = {"stack": stacks.resolve("vllm-0.9.2")}
    wheels = vllm_wheel.Mirror(f"{BUCKET}/wheels")
    assert vllm_wheel.locked_commit(working_folder(wheels.place), wheels, arguments) == commit
    arguments["stack"]["vllm"]["ref"] = "another"
    assert vllm_wheel.locked_commit(working_folder(wheels.place), wheels, arguments) == ""


@pytest.mark.parametrize("there", ["a plugin", "nothing that may be listed"])
def test_what_else_the_bucket_has_stops_no_build(
    bucket: Any, new_run: Any, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    if there == "a plugin":
        name, wheel = "vllm-neuron-0.4.1-cp311-x86_64-0123abcd", "vllm_neuron-0.4.1-py3-none-any.whl"
        facts = {"wheel": wheel, "sha256": "a" * 64, "version": "0.4.1", "commit": "b" * 40, "requirements": []}
        bucket.put_object(Bucket="fleet", Key=f"neuronops/wheels/{name}/{MANIFEST}", Body=json.dumps(facts).encode())
    else:

        def denied(_place: Place, _start: str) -> list[str]:
            raise StoreError("AccessDenied to s3:ListBucket")

        monkeypatch.setattr(Place, "names", denied)
    answer = Builder(b"one").go()
    assert answer.get("failed") is None and answer["built"], answer


def test_where_the_file_system_has_no_links_the_first_file_stays_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    place = Place(str(tmp_path))
    assert place.put_file("a", b"first", first=True) and not place.put_file("a", b"second", first=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"first"


def test_a_wheel_that_the_bucket_has_damaged_is_installed_nowhere(bucket: Any, new_run: Any) -> None:
    Builder(b"one").go()
    (key,) = (name for name in names(bucket) if name.endswith(".whl"))
    bucket.put_object(Bucket="fleet", Key=key, Body=b"other")
    new_run("second run")
    answer = Builder(b"two").go()
    assert answer["failed"] and "is missing or is not what its manifest says" in answer["msg"]


def test_a_place_without_its_library_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(StoreError, match="pip install boto3"):
        Place(BUCKET).put_file("x", b"")
