# SPDX-License-Identifier: GPL-3.0-or-later
"""Package sources that others wrote: apt reads from what is left of them all that it read before, but for ours."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import repository
from hypothesis import given
from hypothesis import strategies as st

SUITE = "neuron-jammy"
WANTED: dict[str, Any] = {
    "manager": "apt",
    "url": "https://mirror.example.com/apt",
    "suite": SUITE,
    "components": ["main"],
    "fingerprint": "DB5D6BB72CFE465E5AE487772C2BF4FE7DC7A599",
    "renew_days": 30,
}
MIRROR = [
    "https://mirror.example.com/apt",
    "https://mirror.example.com/apt/",
    "https://MIRROR.example.com:443//apt",
    "http://mirror.example.com/./apt",
]
AWS = ["https://apt.repos.neuron.amazonaws.com", "https://apt.repos.neuron.amazonaws.com/"]
OTHERS = [
    "http://deb.example.com/debian",
    "https://mirror.example.com/apt/neuron",
    "https://mirror.example.com:8443/apt",
    "https://example.com/mirror.example.com/apt",
    "file:/srv/packages",
    "cdrom:[Debian 12]/",
]
SUITES = [SUITE, "jammy", "jammy-updates", "neuron-jammy-old"]
WORDS = st.sampled_from(["#", "deb", "[", "]", "URIs:", "\n", "\n\n", " ", "\t", "Suites:", *MIRROR, *OTHERS, *SUITES])
needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed")


def spaced(words: st.SearchStrategy[list[str]]) -> st.SearchStrategy[str]:
    return st.tuples(words, st.sampled_from([" ", "  ", "\n ", "\n# of the company\n\t"])).map(
        lambda of: of[1].join(of[0])
    )


def some(words: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(words), min_size=1, max_size=3, unique=True)


@st.composite
def stanza(draw: st.DrawFn) -> str:
    def name(text: str) -> str:
        return str(draw(st.sampled_from([text, text.lower(), text.upper()])))

    fields = [
        f"{name('Types')}: deb",
        f"{name('URIs')}:{draw(st.sampled_from(['', ' ', '  ']))}{draw(spaced(some(MIRROR + AWS + OTHERS)))}",
        f"{name('Suites')}: {draw(spaced(some(SUITES)))}",
        "Components: main",
        *draw(st.lists(st.sampled_from(["Enabled: no", "# a comment", "X-Repolib-Name: x"]), max_size=2, unique=True)),
    ]
    return "\n".join(draw(st.permutations(fields))) + "\n"


STANZAS = st.lists(stanza(), max_size=3).map("\n".join)
LINES = st.lists(
    st.tuples(
        st.sampled_from(
            ["deb ", "deb\t", "  deb  ", "# deb ", "deb [arch=amd64] ", "deb [ trusted=yes signed-by=/x.gpg ] "]
        ),
        st.sampled_from(MIRROR + AWS + OTHERS[:-1]),
        st.sampled_from([" ", "\t "]),
        st.sampled_from(SUITES),
        st.sampled_from([" main", " main  # ours", " main contrib"]),
    ).map("".join),
    max_size=4,
).map(lambda lines: "".join(line + "\n" for line in lines))


def read_by_apt(root: Path) -> set[tuple[str, str, str]] | None:
    """Return (address, suite, component) of all that apt would fetch, or None where it cannot read its sources."""
    command = ["apt-get", "indextargets", "-o", f"Dir={root}", "-o", f"Dir::State::status={root}/status", "-qq"]
    command += ["--no-release-info", "--format", "$(CREATED_BY)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"APT_CONFIG": "/dev/null"})
    if done.returncode:
        return None
    lines = {tuple(line.split("\t")) for line in done.stdout.splitlines()}
    return {(line[1], line[2], line[3]) for line in lines if line[0] == "Packages"}


def is_ours(address: str, suite: str) -> bool:
    if any(address.startswith(url) for url in AWS):
        return True
    plain = address.lower().replace(":443", "").replace("/./", "/").replace("//", "/").replace(":/", "://").rstrip("/")
    return plain in ("https://mirror.example.com/apt", "http://mirror.example.com/apt") and suite == SUITE


def lay_out(root: Path, path: str, text: str) -> Path:
    for folder in ("etc/apt/sources.list.d", "var/lib/apt/lists", "var/cache/apt"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    file = root / path
    file.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    return file


def edit(root: Path, file: Path) -> None:
    """Do what the module would do with the files of others."""
    for path, content in repository.find_leftovers(WANTED, str(root)).items():
        assert root / path.lstrip("/") == file
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)


def check(root: Path, path: str, text: str) -> None:
    file = lay_out(root, path, text)
    try:
        before = read_by_apt(root)
        edit(root, file)
        after = read_by_apt(root)
        if before is not None:
            assert after == {target for target in before if not is_ours(target[0], target[1])}
        left = file.read_bytes() if file.exists() else None
        edit(root, file)
        assert (file.read_bytes() if file.exists() else None) == left
    finally:
        file.unlink(missing_ok=True)


@needs_apt
@given(text=STANZAS)
def test_stanzas_lose_what_is_ours_alone(text: str, tmp_path: Path, tried: Callable[[str], None]) -> None:
    tried("apt sources in stanzas")
    check(tmp_path, "etc/apt/sources.list.d/x.sources", text)


@needs_apt
@given(text=LINES)
def test_lines_lose_what_is_ours_alone(text: str, tmp_path: Path, tried: Callable[[str], None]) -> None:
    tried("apt sources in lines")
    check(tmp_path, "etc/apt/sources.list", text)


@given(text=st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=200), manager=st.sampled_from(["apt", "dnf"]))
def test_any_text_is_read(text: str, manager: str, tmp_path: Path, tried: Callable[[str], None]) -> None:
    tried("package sources of any form")
    root = tmp_path
    (root / "etc/yum.repos.d").mkdir(parents=True, exist_ok=True)
    for path in ("etc/apt/sources.list", "etc/apt/sources.list.d/x.sources", "etc/yum.repos.d/x.repo"):
        lay_out(root, path, text)
    for content in repository.find_leftovers({**WANTED, "manager": manager}, str(root)).values():
        # Nothing comes in that was not there.
        assert content is None or set(content.split()) <= {
            *text.encode("utf-8", "surrogateescape").split(),
            b"URIs:",
            b"Suites:",
        }


SECTION = st.lists(
    st.tuples(
        st.sampled_from(["[a]", "[b]"]),
        some([*MIRROR, *OTHERS[:2]]),
        st.sampled_from(["\n    ", " ", ", "]),
        st.sampled_from(["enabled=1", "enabled=0", "gpgcheck=1", "# enabled=0"]),
    ),
    max_size=3,
)


@given(sections=SECTION)
def test_sections_of_dnf_lose_what_is_ours_alone(
    sections: list[tuple[str, list[str], str, str]], tmp_path: Path, tried: Callable[[str], None]
) -> None:
    tried("dnf sources")
    text = "".join(f"{name}\nbaseurl={between.join(urls)}\n{setting}\n" for name, urls, between, setting in sections)
    (tmp_path / "etc/yum.repos.d").mkdir(parents=True, exist_ok=True)
    file = lay_out(tmp_path, "etc/yum.repos.d/x.repo", text)
    left = repository.find_leftovers({**WANTED, "manager": "dnf"}, str(tmp_path)).get(
        "/etc/yum.repos.d/x.repo", text.encode()
    )
    wanted = []
    for name, urls, _between, setting in sections:
        kept = urls if setting == "enabled=0" else [url for url in urls if not is_ours(url, SUITE)]
        if kept:
            wanted.append((name, kept, setting))
    found = []
    for section in (left or b"").decode().split("[")[1:]:
        lines = section.splitlines()
        baseurl = " ".join(lines[1:-1]).removeprefix("baseurl=").replace(",", " ").split()
        found.append((f"[{lines[0]}", baseurl, lines[-1]))
    assert found == wanted
    file.unlink()
