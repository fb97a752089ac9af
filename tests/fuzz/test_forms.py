# SPDX-License-Identifier: GPL-3.0-or-later
"""The validator: what it lets through is what pip, uv and packaging read in the same way, and nothing more."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.neuronops.vllm.plugins.module_utils import forms
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import parse_wheel_filename
from packaging.version import Version

DIGEST = "0123456789abcdef" * 4
HASH = f"--hash=sha256:{DIGEST}"
GOOD = f"# made by us\npip==24.0 \\\n    {HASH}\nSix==1.16.0 {HASH} {HASH}\n"
PIECES = st.sampled_from(
    [
        "\n",
        "\\\n",
        " ",
        "#",
        ";",
        "@",
        "--index-url http://x/simple",
        "-r /etc/passwd",
        "-e .",
        "==",
        "[a]",
        "evil==1.0",
        "\x0c",
        "\r",
        "\u2028",
        "\x1c",
        "\x85",
        "${HOME}",
        "'",
        '"',
        f"--hash=sha256:{DIGEST}",
        "--hash=md5:" + "0" * 32,
        "\0",
        "../",
        "name @ http://x/y.whl",
    ]
)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """Return a text with some pieces put in, taken out or doubled."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 40)))
        piece = draw(st.one_of(PIECES, st.text(max_size=8), st.just(text[start:end])))
        text = text[:start] + piece + text[draw(st.sampled_from([start, end])) :]
    return text


@given(text=st.one_of(mutated(GOOD), st.text(max_size=200)))
def test_a_lock_is_read_as_pip_reads_it_or_refused(text: str, tried: Callable[[str], None]) -> None:
    tried("lock")
    try:
        packages = forms.lock(text)
    except forms.FormError:
        return
    lines = pip_lines(text)
    assert len(lines) == len(packages)
    for line in lines:
        name, _equal, rest = line.partition("==")
        version, *hashes = rest.split()
        assert packages[forms.normalised(name)][0] == version
        assert {option.rpartition(":")[2].lower() for option in hashes} == set(packages[forms.normalised(name)][1])
    assert forms.lock(forms.lock_text(packages)) == packages


def pip_lines(text: str) -> list[str]:
    """Return the logical lines that pip sees."""
    from pip._internal.req.req_file import preprocess

    return [line for _number, line in preprocess(text)]


@given(
    text=st.one_of(
        mutated("torch[extra]>=2.0,<3; python_version >= '3.8' and (os_name == 'posix')"), st.text(max_size=60)
    )
)
def test_a_requirement_that_passes_is_one_of_pep_508_without_an_address(
    text: str, tried: Callable[[str], None]
) -> None:
    tried("requirement")
    try:
        forms.requirement(text)
    except forms.FormError:
        return
    assert "\n" not in text and "\r" not in text
    try:
        parsed = Requirement(text)
    except InvalidRequirement:
        raise AssertionError(f"{text!r} is no requirement to packaging") from None
    assert parsed.url is None
    assert forms.requirement_name(text) == forms.normalised(parsed.name)


@given(text=st.one_of(mutated("vllm-0.9.2+neuron218-py3-none-any.whl"), st.text(max_size=60)))
def test_a_wheel_name_that_passes_is_one_part_of_a_path(text: str, tried: Callable[[str], None]) -> None:
    tried("wheel name")
    try:
        forms.wheel_name(text)
    except forms.FormError:
        return
    assert "/" not in text and "\0" not in text and not text.startswith(".") and "\n" not in text
    parse_wheel_filename(text)


@given(text=st.one_of(mutated("1!2.0.0rc1.post1.dev0+neuron218"), st.text(max_size=40)))
def test_a_version_that_passes_is_one_of_pep_440(text: str, tried: Callable[[str], None]) -> None:
    tried("version")
    try:
        forms.form("version", text)
    except forms.FormError:
        return
    Version(text)
