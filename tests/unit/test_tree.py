# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every file of the checkout."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from plugins.plugin_utils.uv import requirement

CHECKOUT = Path(__file__).resolve().parents[2]
# Prose, data, what tools write, and what is tested as it came from elsewhere.
WITHOUT_LICENCE = (".md", ".rst", ".txt", ".json", ".gitignore", ".keep", "LICENSE", "changelogs/changelog.yaml")


def tracked() -> list[str]:
    """Return the files that git knows, or would."""
    command = ["git", "-C", str(CHECKOUT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (CHECKOUT / name).exists()]


def test_every_source_says_its_licence() -> None:
    sources = [name for name in tracked() if not name.endswith(WITHOUT_LICENCE) and "/fixtures/" not in name]
    assert len(sources) > 200
    # Linux takes modules under its own licence.
    licence = re.compile(r"SPDX-License-Identifier: GPL-[23]\.0-or-later")
    without = [name for name in sources if not licence.search(first_lines(name))]
    assert without == []


def test_every_rule_that_is_skipped_has_its_reason_beside_it() -> None:
    skipped = re.compile(r"# (noqa|type: ignore|fmt: off|pragma: no cover|yamllint disable)\b.*")
    reason = re.compile(r"# noqa: [\w, \[\]-]+ - \w|# type: ignore\[[\w, -]+\]  # \w")
    found = [
        f"{name}: {match[0]}"
        for name in tracked()
        if name.endswith((".py", ".yml", ".sh")) and name != "tests/unit/test_tree.py"
        for match in skipped.finditer((CHECKOUT / name).read_text(encoding="utf-8"))
        if not reason.match(match[0])
    ]
    assert found == []


def first_lines(name: str) -> str:
    return "\n".join((CHECKOUT / name).read_text(encoding="utf-8").splitlines()[:4])


def test_uv_is_the_one_that_the_collection_is_tested_with() -> None:
    pinned = (CHECKOUT / "requirements" / "dev.txt").read_text().split("\nuv==")[1].split("\n")
    lines = ["uv==" + pinned[0]]
    for line in pinned[1:]:
        if not line.startswith(" "):
            break
        lines.append(line)
    assert "\n".join(lines) in requirement()


def test_each_row_of_the_threat_model_names_tests_that_there_are() -> None:
    rows = [
        line
        for line in (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| who | may decide")
    ]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(?:\w+::)?(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (CHECKOUT / file).read_text(encoding="utf-8"), f"{file} has no {test}"


def test_a_tasks_name_begins_with_a_word_of_the_style() -> None:
    style = (CHECKOUT / "docs" / "style.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\b[A-Z][a-z]+\b", style[style.index("name begins with") : style.index("- A message")]))
    assert {"Check", "Ensure", "Verify"} < words
    wrong = []
    for path in [*CHECKOUT.glob("roles/*/tasks/*.yml"), *CHECKOUT.glob("playbooks/**/*.yml")]:
        for name in re.findall(r"(?m)^ *- name: ([^\n:]+)\n *(?=[a-z_.]+:)", path.read_text(encoding="utf-8")):
            if name.split()[0] not in words and not name.startswith("vllm_server_"):
                wrong.append(f"{path.relative_to(CHECKOUT)}: {name}")
    assert wrong == []
