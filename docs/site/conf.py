# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes the site; build.sh lays out its pages."""

import re
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

CHECKOUT = Path(__file__).resolve().parents[2]  # of .build/site-pages
GALAXY = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))

project = f"{GALAXY['namespace']}.{GALAXY['name']}"
copyright = "neuronops.vllm contributors"
release = version = GALAXY["version"]
extensions = ["myst_parser", "sphinx_antsibull_ext"]
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
highlight_language = "yaml+jinja"
# Options of commands keep their two hyphens.
smartquotes = False
myst_heading_anchors = 3
# Where the reference leads to in Ansible's own documentation, of which no inventory is fetched.
ANSIBLE = "https://docs.ansible.com/ansible/latest"
PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def link_out(_app: Sphinx, page: str, source: list[str]) -> None:
    """Turn links to roles into links to the reference, other links out of docs into such to the repository."""
    if page.startswith("reference/"):
        return
    text = re.sub(r"\]\(\.\./roles/(\w+)/README\.md\)", r"](reference/\1_role.rst)", source[0])
    source[0] = re.sub(r"\]\(\.\./([^)]+)\)", rf"]({GALAXY['repository']}/blob/main/\1)", text)


def link_to_ansible(_app: Sphinx, _env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Node | None:
    """Return a link to Ansible's own documentation; a target that is not there either stays a warning."""
    target = node["reftarget"]
    plugin = re.fullmatch(r"ansible_collections\.(ansible|amazon|community)\.(\w+)\.(\w+)", target)
    page = f"collections/{plugin[1]}/{plugin[2]}/{plugin[3]}.html" if plugin else PAGES.get(target)
    return page and nodes.reference("", "", text, refuri=f"{ANSIBLE}/{page}", internal=False)


def setup(app: Sphinx) -> None:
    """Add what this file does."""
    app.connect("missing-reference", link_to_ansible)
    app.connect("source-read", link_out)
