# SPDX-License-Identifier: GPL-3.0-or-later
"""What GitHub reads has the form that it wants, which nothing else says before a push; what must not ship does not."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
GITHUB = CHECKOUT / ".github"
FORMS = [path for path in sorted(GITHUB.glob("ISSUE_TEMPLATE/*.yml")) if path.name != "config.yml"]
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
# Of GitHub's syntax for issue forms.
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_is_one(path: Path) -> None:
    form = read(path)
    assert set(form) <= {"name", "description", "title", "labels", "assignees", "body"}
    assert form["name"] and form["description"]
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in form["body"]} <= KINDS and asked
    assert len({part["id"] for part in asked}) == len(asked)
    assert all(part["attributes"]["label"] for part in asked)
    assert any(part.get("validations", {}).get("required") for part in asked)
    assert all(part["attributes"]["value"] for part in form["body"] if part["type"] == "markdown")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_one_with_few_rights_and_an_end(path: Path) -> None:
    workflow = read(path)
    assert workflow["on"] and workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert set(job.get("needs", [])) <= set(workflow["jobs"]), name
        if "uses" in job:
            assert "workflow_call" in read(CHECKOUT / job["uses"])["on"]
            continue
        assert job["runs-on"] and job["timeout-minutes"] <= 360, name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_an_action_is_pinned_by_its_commit_and_says_its_version(path: Path) -> None:
    # A tag or branch of somebody else's may be anything tomorrow; dependabot moves both.
    used = re.findall(r"^.*\buses: (?!\./).*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert used and [line for line in used if not re.search(r"@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_targets_and_parts_that_there_are(path: Path) -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    parts = re.findall(r'Part\(\s*"([\w-]+)"', (CHECKOUT / "tests" / "run.py").read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\bmake (?:--silent )?([a-z][a-z-]*)", text) + re.findall(r'"(test-?[a-z]*)"', text)
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), targets
    assert set(re.findall(r"PART=([\w-]+)", text)) <= set(parts)


def test_a_release_is_tested_checked_and_published_with_a_secret_of_its_environment() -> None:
    workflow = read(GITHUB / "workflows" / "release.yml")
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    publish = workflow["jobs"]["publish"]
    assert set(publish["needs"]) == {"test", "build"} and publish["environment"]
    assert "PART=galaxy_importer" in str(workflow["jobs"]["build"])
    secrets = re.findall(r"secrets\.\w+", str(workflow))
    assert secrets == ["secrets.GALAXY_API_KEY"] and secrets[0] in str(publish)


def test_dependabot_looks_after_the_actions() -> None:
    found = read(GITHUB / "dependabot.yml")
    assert found["version"] == 2
    for update in found["updates"]:
        assert {"package-ecosystem", "directory", "schedule"} <= set(update)
    assert "github-actions" in {update["package-ecosystem"] for update in found["updates"]}


@pytest.mark.parametrize(
    "name", ["CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md"]
)
def test_what_github_links_to_is_there(name: str) -> None:
    assert (CHECKOUT / name).stat().st_size > 100


def test_what_the_tools_leave_in_a_checkout_is_not_in_an_artifact() -> None:
    """tests/artifact.sh builds from what git knows; people build from their checkout."""
    ignored = read(CHECKOUT / "galaxy.yml")["build_ignore"]
    left = [*(CHECKOUT / ".gitignore").read_text(encoding="utf-8").split(), ".hypothesis/"]
    for pattern in left:
        name = pattern.strip("/")
        top = name.split("/")[0]
        assert any(fnmatch.fnmatch(name, other) or other in (name, top) for other in ignored), pattern
