# SPDX-License-Identifier: GPL-3.0-or-later
"""The validator of foreign text: what passes, and what does not (tests/fuzz draws more)."""

from __future__ import annotations

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import addresses, forms

DIGEST = "0123456789abcdef" * 4
HASH = f"--hash=sha256:{DIGEST}"
LOCK = f"# a head\n\nPip==24.0 \\\n    {HASH} \\\n    --hash=sha256:{'f' * 64}\nsix==1.16.0 {HASH}\n"


def test_a_lock_is_read_and_written_as_it_was_understood() -> None:
    packages = forms.lock(LOCK)
    assert packages == {"pip": ("24.0", [DIGEST, "f" * 64]), "six": ("1.16.0", [DIGEST])}
    assert forms.lock(forms.lock_text(packages)) == packages


@pytest.mark.parametrize(
    "line",
    [
        "evil @ http://127.0.0.1/evil.whl",
        f"evil @ http://127.0.0.1/evil.whl --hash=sha256:{DIGEST}",
        "--index-url http://attacker.example/simple",
        "-r other.txt",
        "-e .",
        f"evil[extra]==1.0 --hash=sha256:{DIGEST}",
        "evil==1.0",
        f"evil>=1.0 --hash=sha256:{DIGEST}",
        f"evil==1.* --hash=sha256:{DIGEST}",
        f"evil==1.0 --hash=md5:{'0' * 32}",
        f"evil==1.0 --hash=sha256:{DIGEST[:-1]}",
        f"evil==1.0 --hash=sha256:{DIGEST} --config-settings=a=b",
        f"evil==1.0; python_version > '3' --hash=sha256:{DIGEST}",
        f"six==1.17.0 --hash=sha256:{DIGEST}",
        "# a comment that goes on \\",
        f"# a comment\x0cevil==1.0 --hash=sha256:{DIGEST}",
        f"# a comment\u2028evil==1.0 --hash=sha256:{DIGEST}",
        f"evil==1.0 --hash=sha256:{DIGEST}  # why",
        f" evil==1.0 --hash=sha256:{DIGEST}",
        f"ev\u0131l==1.0 --hash=sha256:{DIGEST}",
        "${HOME}",
    ],
)
def test_a_lock_with_anything_else_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(forms.FormError, match="line 7 of the lock"):
        forms.lock(LOCK + line + "\n")


@pytest.mark.parametrize(
    "name",
    [
        "../../.ssh/authorized_keys",
        "/etc/passwd",
        "vllm.whl",
        ".vllm-1-py3-none-any.whl",
        "vllm-1-py3-none-any.whl\n",
        "a/vllm-1-py3-none-any.whl",
    ],
)
def test_a_wheel_is_named_as_wheels_are(name: str) -> None:
    with pytest.raises(forms.FormError):
        forms.wheel_name(name)


def test_a_wheel_is_of_its_package_and_version() -> None:
    assert forms.wheel_name("vllm-0.9.2+neuron218-py3-none-any.whl", "vllm", "0.9.2+neuron218")
    for package, version in (("torch", None), ("vllm", "0.9.1+neuron218")):
        with pytest.raises(forms.FormError):
            forms.wheel_name("vllm-0.9.2+neuron218-py3-none-any.whl", package, version)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("commit", "a5dd03c"),
        ("commit", "A" * 40),
        ("commit", "a" * 40 + "\n"),
        ("SHA-256", "0" * 63),
        ("Python version", "3.10/../.."),
        ("Python version", 3.1),
        ("architecture", "x86_64\n"),
        ("file name", ".."),
        ("file name", "a/b"),
        ("file name", "-rf"),
        ("file name", "a..b"),
        ("version", "1.0 --hash"),
        ("git ref", "--upload-pack=x"),
        ("git ref", "a..b"),
        ("kernel release", "6.8.0\n"),
        ("line of text", "a\x1b[2Jb"),
    ],
)
def test_a_form_refuses_what_does_not_have_it(kind: str, value: object) -> None:
    with pytest.raises(forms.FormError, match=f"that is no {kind}"):
        forms.form(kind, value)


def test_fields_are_a_closed_list() -> None:
    assert forms.fields({"a": 1}, ["a", "b"], "it", optional=["b"]) == {"a": 1}
    with pytest.raises(forms.FormError, match="lacks b"):
        forms.fields({"a": 1}, ["a", "b"], "it")
    with pytest.raises(forms.FormError, match="unknown key 'add_host'"):
        forms.fields({"a": 1, "add_host": {}}, ["a"], "it")


@pytest.mark.parametrize(
    "other",
    [
        "https://MIRROR.example.com/simple/",
        "https://mirror.example.com:443/simple",
        "https://mirror.example.com//simple",
        "https://mirror.example.com/./simple",
        "https://user@mirror.example.com/simple",
    ],
)
def test_an_address_is_the_same_however_it_is_written(other: str) -> None:
    assert addresses.same("https://mirror.example.com/simple", other)


@pytest.mark.parametrize(
    "other",
    [
        "http://mirror.example.com/simple",
        "https://mirror.example.com:444/simple",
        "https://mirror.example.com/simple2",
        "https://xmirror.example.com/simple",
    ],
)
def test_another_address_is_another(other: str) -> None:
    assert not addresses.same("https://mirror.example.com/simple", other)


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://user:pass@host/x", True),
        ("https://token@host/x", True),
        ("http://:pass@host", True),
        ("ssh://git:pass@host/x", True),
        ("ssh://git@host:2222/x", False),
        ("git@host:group/x.git", False),
        ("user:pass@host:3128", True),
        ("https://host/x@y", False),
        ("http://[::1]:3128", False),
    ],
)
def test_credentials_are_found_by_the_parts_of_an_address(url: str, secret: bool) -> None:
    assert addresses.has_credentials(url) is secret
