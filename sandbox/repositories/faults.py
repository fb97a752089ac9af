# SPDX-License-Identifier: GPL-3.0-or-later
"""Switch faults of the sandbox's repositories on and off; the server looks at each request."""

from __future__ import annotations

import json
from pathlib import Path

from sandbox.settings import SandboxError

CONTROL = Path(".control") / "faults.json"

_HOW = "answers 503, closes the connection, or never ends its answer"
# Each fault with the values it takes and what then happens.
FAULTS: dict[str, tuple[tuple[str, ...], str]] = {
    "apt": (("down", "closed", "stalled"), f"the apt repository {_HOW}"),
    "pip": (("down", "closed", "stalled"), f"the Neuron Python index {_HOW}"),
    "git": (("down", "closed", "stalled"), f"the git remote {_HOW}"),
    "key": (("expired", "expiring", "wrong", "second"), "the apt repository hands out this key"),
    "signature": (("second",), "the apt repository is signed by the second key"),
    "wheel": (("truncated", "corrupt"), "wheels end half way, or arrive with other bytes"),
    "tag": (("moved",), "every tag of the git remote points at another commit"),
    "slow": (("SECONDS",), "each answer waits that long"),
}


def read(root: Path) -> dict[str, str]:
    """The faults that are on."""
    try:
        found: dict[str, str] = json.loads((root / CONTROL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def write(root: Path, faults: dict[str, str], client: str = "") -> None:
    """Replace the faults that are on; {} ends all of them. `root` is the folder that is served.

    client: address of the one host that meets them, which then meets no others.
    """
    for name, value in faults.items():
        if name not in FAULTS:
            raise SandboxError(f"There is no fault {name!r}; choose from {', '.join(FAULTS)}.")
        values = FAULTS[name][0]
        right = value.replace(".", "", 1).isdigit() if name == "slow" else value in values
        if not right:
            raise SandboxError(f"The fault {name!r} cannot be {value!r}; choose from {', '.join(values)}.")
    path = root / CONTROL
    if client:
        path = path.with_name(f"{client}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(faults), encoding="utf-8")
    new.replace(path)


def parse(words: list[str]) -> dict[str, str]:
    """Turn `apt=down key=expired` into a dictionary."""
    pairs = (word.partition("=") for word in words)
    return {name: value for name, _, value in pairs}
