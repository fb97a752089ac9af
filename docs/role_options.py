# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the table of options in each role's README from its meta/argument_specs.yml.

Run as `make docs`. The table stands between the two marker lines; everything else in the README is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- options: written by `make docs` -->", "<!-- end of options -->"


def plain(markup: str) -> str:
    """Turn Ansible's documentation markup into Markdown that a table cell can hold."""
    markup = re.sub(r"[OVCP]\(([^)#]+)(?:#[a-z]+)?\)", r"`\1`", markup)
    markup = re.sub(r"[BI]\(([^)]+)\)", r"*\1*", markup)
    return markup.replace("|", "\\|").replace("\n", " ")


def cell(value: Any) -> str:
    """Show a default as one would write it."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "`" + (text or '""').replace("|", "\\|") + "`"


def tables(role: Path) -> str:
    """Return the table of a role's options, one for each entry point."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    file = role / "defaults" / "main.yml"
    defaults = yaml.safe_load(file.read_text(encoding="utf-8")) or {} if file.exists() else {}
    found = {point: table(spec["options"], defaults) for point, spec in specs.items()}
    return found["main"] if "main" in found else "\n\n".join(f"`{point}`\n\n{text}" for point, text in found.items())


def described(description: str | list[str]) -> str:
    """Return a description as one text."""
    return " ".join([description] if isinstance(description, str) else description)


def table(options: dict[str, Any], defaults: dict[str, Any]) -> str:
    """Return the table of options, with the defaults of the role or else of the specification."""
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        text = described(option["description"])
        for key, part in option.get("options", {}).items():
            text += f" {cell(key)}: {described(part['description'])[0].lower()}{described(part['description'])[1:]}"
            if part.get("choices"):
                text = f"{text.rstrip('.')}, one of {', '.join(cell(choice) for choice in part['choices'])}."
        if option.get("choices"):
            text += " One of " + ", ".join(cell(choice) for choice in option["choices"]) + "."
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        default = "required" if option.get("required") else cell(defaults.get(name, option.get("default", "not set")))
        lines.append(f"| `{name}` | {kind} | {default} | {plain(text)} |")
    return "\n".join(lines)


def renewed(role: Path) -> str:
    """Return the role's README with the table as it should be."""
    readme = (role / "README.md").read_text(encoding="utf-8")
    if BEGIN not in readme or END not in readme:
        raise SystemExit(f"{role.name}/README.md lacks the lines {BEGIN!r} and {END!r}")
    before, rest = readme.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{tables(role)}\n{END}{after}"


def main() -> None:
    """Renew every README."""
    for role in sorted(path.parent.parent for path in CHECKOUT.glob("roles/*/meta/argument_specs.yml")):
        (role / "README.md").write_text(renewed(role), encoding="utf-8")


if __name__ == "__main__":
    main()
