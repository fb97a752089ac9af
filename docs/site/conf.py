# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes the site; build.sh lays out its pages."""

import posixpath
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


def address(link: re.Match[str]) -> str:
    """Return a link as the site has it: roles have a page of the reference, other files stay in the repository."""
    target = link[1]
    role = re.fullmatch(r"\.\./roles/(\w+)/README\.md", target)
    if role:
        return f"](reference/{role[1]}_role.rst)"
    if re.match(r"https?:|#|reference/|[\w-]+\.md(?:#|$)", target):
        return link[0]
    return f"]({GALAXY['repository']}/blob/main/{posixpath.normpath(posixpath.join('docs', target))})"


def link_out(_app: Sphinx, page: str, source: list[str]) -> None:
    """Let the links of a page lead to what the site has of them, or to the repository."""
    if not page.startswith("reference/"):
        source[0] = re.sub(r"\]\(([^()\s]+)\)", address, source[0])


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
