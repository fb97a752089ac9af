# SPDX-License-Identifier: GPL-3.0-or-later
"""A wheel is taken from the store or a mirror only when it is whole and what its manifest says."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import FormError
from ansible_collections.neuronops.vllm.plugins.plugin_utils import places, wheel_store
from ansible_collections.neuronops.vllm.plugins.plugin_utils.wheel_store import MANIFEST, Mirror, StoreError
from moto import mock_aws

CONTENT = b"a wheel"
WHEEL = "vllm-0.9.2+neuron218-py3-none-any.whl"
MANIFEST_OF_IT: dict[str, Any] = {
    "wheel": WHEEL,
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "version": "0.9.2+neuron218",
    "commit": "c" * 40,
    "requirements": ["fastapi>=0.1"],
    "source": "https://mirror.example/vllm.git",
    "ref": "v0.9.2",
}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder of the store with a wheel in it."""
    wheel = tmp_path / "built"
    wheel.write_bytes(CONTENT)
    folder = tmp_path / "store" / "one"
    wheel_store.write(folder, wheel, MANIFEST_OF_IT)
    return folder


def test_what_was_written_is_read(stored: Path) -> None:
    assert wheel_store.read(stored) == MANIFEST_OF_IT
    assert sorted(path.name for path in stored.iterdir()) == [MANIFEST, WHEEL]
    assert {path.stat().st_mode & 0o777 for path in stored.iterdir()} == {0o644}


@pytest.mark.parametrize("name", [WHEEL, MANIFEST])
@pytest.mark.parametrize("damage", ["gone", "cut off", "changed"])
def test_what_is_damaged_is_as_good_as_none(stored: Path, name: str, damage: str) -> None:
    path = stored / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2] if damage == "cut off" else b"{}")
    assert wheel_store.read(stored) is None


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and takes files into it."""

    def do_PUT(self) -> None:
        path = Path(self.translate_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture(params=["folder", "http", "s3"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    folder = tmp_path / "mirror"
    folder.mkdir()
    if request.param == "folder":
        yield Mirror(str(folder))
    elif request.param == "http":
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Mirror(f"http://127.0.0.1:{server.server_port}/wheels/", insecure=True)
        server.shutdown()
        server.server_close()
    else:
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with mock_aws():
            import boto3

            boto3.client("s3").create_bucket(Bucket="wheels")
            yield Mirror("s3://wheels/neuron")


def test_a_mirror_gives_back_what_it_was_given(mirror: Mirror, stored: Path, tmp_path: Path) -> None:
    assert mirror.fetch("one", tmp_path / "other") is None
    mirror.put("one", stored)
    assert mirror.fetch("one", tmp_path / "other") == MANIFEST_OF_IT
    assert wheel_store.read(tmp_path / "other") == MANIFEST_OF_IT
    assert (tmp_path / "other" / WHEEL).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": "0" * 64}, "is not what its manifest says"),
        ({"wheel": "vllm-0.9.2+neuron218-1-py3-none-any.whl"}, "is missing or is not what"),
        (None, "is damaged"),
    ],
)
def test_a_mirror_with_another_file_is_refused(
    mirror: Mirror, stored: Path, tmp_path: Path, changed: dict[str, str] | None, message: str
) -> None:
    mirror.put("one", stored)
    bad = tmp_path / "bad"
    bad.write_text("{" if changed is None else json.dumps({**MANIFEST_OF_IT, **changed}))
    mirror.put_file(f"one/{MANIFEST}", bad)
    with pytest.raises(StoreError, match=message):
        mirror.fetch("one", tmp_path / "other")
    assert wheel_store.read(tmp_path / "other") is None


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/wheels", "s3://no-such-bucket/wheels"])
def test_a_mirror_that_does_not_answer_is_named(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws(), pytest.raises(StoreError, match=r"(127\.0\.0\.1:9|no-such-bucket).* cannot be"):
        Mirror(place, insecure=True).fetch("one", tmp_path / "other")


def test_a_mirror_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="neither a folder nor https:// nor s3://"):
        Mirror("ftp://mirror.example/wheels")


@pytest.mark.parametrize(
    "changed",
    [
        {"wheel": "../../.ssh/authorized_keys"},
        {"wheel": "/etc/cron.d/x"},
        {"wheel": "vllm-0.9.2+neuron218-py3-none-any.whl\n"},
        {"wheel": "torch-0.9.2+neuron218-py3-none-any.whl"},
        {"wheel": "vllm-0.9.1+neuron218-py3-none-any.whl"},
        {"wheel": ["a"]},
        {"sha256": "x"},
        {"sha256": None},
        {"version": "0.9.2 --index-url=x"},
        {"commit": "82091b864"},
        {"commit": None},
        {"requirements": "fastapi"},
        {"requirements": ["fastapi\n--index-url http://x"]},
        {"requirements": ["fastapi @ https://x/y.whl"]},
        {"add_host": {"host_name": "injected"}},
        {"ansible_facts": {"vllm_server_port": 1}},
        {"failed": False},
        {"source": "a\nb"},
        {"ref": "--upload-pack=x"},
    ],
)
def test_a_manifest_is_its_fields_in_their_forms_and_nothing_else(
    stored: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    mirror = Mirror(str(tmp_path / "mirror"))
    mirror.put("one", stored)
    bad = tmp_path / "bad"
    bad.write_text(json.dumps({**MANIFEST_OF_IT, **changed}))
    mirror.put_file(f"one/{MANIFEST}", bad)
    with pytest.raises(StoreError, match="is not that of the wanted wheel"):
        mirror.fetch("one", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (stored / MANIFEST).write_bytes(bad.read_bytes())
    assert wheel_store.read(stored) is None
    with pytest.raises(FormError):
        wheel_store.write(stored, tmp_path / "none", {**MANIFEST_OF_IT, **changed})


@pytest.mark.parametrize("missing", ["wheel", "sha256", "version", "commit", "requirements"])
def test_a_manifest_lacks_nothing(missing: str) -> None:
    with pytest.raises(FormError, match=f"lacks {missing}"):
        wheel_store.checked({name: value for name, value in MANIFEST_OF_IT.items() if name != missing})


def test_each_package_has_wheels_of_its_own_name(stored: Path, tmp_path: Path) -> None:
    plugin = {**MANIFEST_OF_IT, "wheel": "vllm_neuron-0.2.2+lts-py3-none-any.whl", "version": "0.2.2+lts"}
    folder, wheel = tmp_path / "store" / "plugin", tmp_path / "built"
    wheel.write_bytes(CONTENT)
    with pytest.raises(FormError, match="should be one of vllm"):
        wheel_store.write(folder, wheel, plugin)
    wheel_store.write(folder, wheel, plugin, "vllm-neuron")
    assert wheel_store.read(folder, package="vllm-neuron") == plugin
    assert wheel_store.read(folder) is None and wheel_store.read(stored, package="vllm-neuron") is None
    mirror = Mirror(str(tmp_path / "mirror"), package="vllm-neuron")
    mirror.put("plugin", folder)
    assert mirror.fetch("plugin", tmp_path / "other") == plugin
    with pytest.raises(StoreError, match="should be one of vllm"):
        Mirror(str(tmp_path / "mirror")).fetch("plugin", tmp_path / "another")


@pytest.mark.parametrize("content", [b"[]", b"null", b'"x"', b"\xff", b"[" * 100000, b"1", b""])
def test_what_is_no_manifest_is_none(stored: Path, content: bytes) -> None:
    (stored / MANIFEST).write_bytes(content)
    assert wheel_store.read(stored) is None


def test_another_wheel_than_the_wanted_one_is_none(mirror: Mirror, stored: Path, tmp_path: Path) -> None:
    def check(_manifest: dict[str, Any]) -> None:
        raise FormError("another")

    assert wheel_store.read(stored, check) is None
    mirror.put("one", stored)
    with pytest.raises(StoreError, match="another"):
        mirror.fetch("one", tmp_path / "other", check)


def test_a_hash_is_made_without_what_python_3_10_lacks(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hashlib, "file_digest", raising=False)
    assert wheel_store.read(stored) == MANIFEST_OF_IT


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/wheels", "HTTP://mirror.example/wheels"])
def test_plain_http_is_asked_for_in_words(place: str) -> None:
    with pytest.raises(StoreError, match="is plain http"):
        Mirror(place)
    assert Mirror(place, insecure=True).scheme == "http"


@pytest.mark.parametrize("place", ["https://me:secret@mirror.example/wheels", "https://token@mirror.example/wheels"])
def test_a_mirror_holds_no_credentials(place: str) -> None:
    with pytest.raises(StoreError, match=r"\.netrc") as failure:
        Mirror(place)
    assert "secret" not in str(failure.value) and "token" not in str(failure.value)


def test_a_mirror_sends_to_no_worse_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def sends_on(url: str, **_options: Any) -> Any:
        asked.append(url)
        raise HTTPError(url, 302, "Found", {"Location": "http://other.example/manifest.json"}, None)  # type: ignore[arg-type]  # as urllib gives it

    monkeypatch.setattr(places, "open_url", sends_on)
    with pytest.raises(StoreError, match=r"sends to http://other\.example/manifest\.json, which is not https"):
        Mirror("https://mirror.example/wheels").fetch("one", tmp_path / "other")
    assert asked == [f"https://mirror.example/wheels/one/{MANIFEST}"]
    assert not (tmp_path / "other").exists()


def test_a_server_that_sends_on_is_followed(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sends(Server):
        def do_GET(self) -> None:
            if self.path.startswith("/old"):
                self.send_response(302)
                self.send_header("Location", self.path.replace("/old", "/new", 1))
                self.end_headers()
            else:
                super().do_GET()

    Mirror(str(tmp_path / "new")).put("one", stored)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Sends, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mirror = Mirror(f"http://127.0.0.1:{server.server_port}/old", insecure=True)
    assert mirror.fetch("one", tmp_path / "other") == MANIFEST_OF_IT
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("limit", "name"), [("MOST_MANIFEST", MANIFEST), ("MOST_WHEEL", WHEEL)])
def test_a_file_that_is_too_large_is_given_up(
    mirror: Mirror, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, name: str
) -> None:
    mirror.put("one", stored)
    monkeypatch.setattr(wheel_store, limit, 3)
    with pytest.raises(StoreError, match=f"{re.escape(name)} is larger than 3 bytes"):
        mirror.fetch("one", tmp_path / "other")
    assert not list((tmp_path / "other").glob("*")) and not list((tmp_path / "other").glob(".*"))


def test_two_controllers_write_to_a_mirror_at_a_time(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "one" / f".{WHEEL}.partial").mkdir(parents=True)
    mirror = Mirror(str(tmp_path / "mirror"))
    mirror.put("one", stored)
    assert mirror.fetch("one", tmp_path / "other") == MANIFEST_OF_IT
    name = f"{MANIFEST_OF_IT['sha256'][:16]}-{WHEEL}"
    assert sorted(path.name for path in (tmp_path / "mirror" / "one").glob("[!.]*")) == sorted([MANIFEST, name])


def test_who_may_not_list_a_bucket_has_no_wheel_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from botocore.exceptions import ClientError

    class Client:
        def get_object(self, **_what: str) -> None:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")

    monkeypatch.setattr(boto3, "client", lambda _service, **_options: Client())
    mirror = Mirror("s3://wheels/neuron")
    assert mirror.fetch("one", tmp_path / "other") is None
    assert "allow s3:ListBucket" in mirror.warnings[0]


def test_of_two_that_built_the_same_wheel_the_first_ones_stays(mirror: Mirror, stored: Path, tmp_path: Path) -> None:
    """As two controllers do, each of which saw that there is none: their wheels have one name and other contents."""
    second, wheel = tmp_path / "second" / "one", tmp_path / "built"
    wheel.write_bytes(b"the same wheel, zipped a second later")
    wheel_store.write(second, wheel, {**MANIFEST_OF_IT, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()})
    assert mirror.put("one", stored)
    if mirror.scheme != "http":  # which may not know what If-None-Match means
        assert not mirror.put("one", second)
        assert mirror.fetch("one", second) == MANIFEST_OF_IT
        assert (second / WHEEL).read_bytes() == CONTENT


def test_a_folder_of_wheels_that_was_copied_is_a_mirror(mirror: Mirror, stored: Path, tmp_path: Path) -> None:
    for name in (WHEEL, MANIFEST):
        mirror.put_file(f"one/{name}", stored / name)
    assert mirror.fetch("one", tmp_path / "other") == MANIFEST_OF_IT
