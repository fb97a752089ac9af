# SPDX-License-Identifier: GPL-3.0-or-later
"""A wheel is taken from the store or a mirror only when it is whole and what its manifest says."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from plugins.plugin_utils import wheel_store
from plugins.plugin_utils.wheel_store import MANIFEST, Mirror, StoreError

CONTENT = b"a wheel"
MANIFEST_OF_IT = {"wheel": "vllm.whl", "sha256": hashlib.sha256(CONTENT).hexdigest(), "version": "0.9.2+neuron218"}


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
    assert sorted(path.name for path in stored.iterdir()) == [MANIFEST, "vllm.whl"]
    assert {path.stat().st_mode & 0o777 for path in stored.iterdir()} == {0o644}


@pytest.mark.parametrize("name", ["vllm.whl", MANIFEST])
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
        yield Mirror(f"http://127.0.0.1:{server.server_port}/wheels/")
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
    assert (tmp_path / "other" / "vllm.whl").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": "0" * 64}, "is not what its manifest says"),
        ({"wheel": "other.whl"}, "is missing or is not what"),
        (None, "is damaged"),
    ],
)
def test_a_mirror_with_another_file_is_refused(
    mirror: Mirror, stored: Path, tmp_path: Path, changed: dict[str, str] | None, message: str
) -> None:
    mirror.put("one", stored)
    bad = tmp_path / "bad"
    bad.write_text("{" if changed is None else json.dumps({**MANIFEST_OF_IT, **changed}))
    mirror._put(f"one/{MANIFEST}", bad)
    with pytest.raises(StoreError, match=message):
        mirror.fetch("one", tmp_path / "other")
    assert wheel_store.read(tmp_path / "other") is None


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/wheels", "s3://no-such-bucket/wheels"])
def test_a_mirror_that_does_not_answer_is_named(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws(), pytest.raises(StoreError, match=r"(127\.0\.0\.1:9|no-such-bucket).* cannot be"):
        Mirror(place).fetch("one", tmp_path / "other")


def test_a_mirror_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="neither a folder nor https:// nor s3://"):
        Mirror("ftp://mirror.example/wheels")
