# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m sandbox.repositories build FOLDER`, and `... fault NAME=VALUE` to break those of a running sandbox."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sandbox.repositories import faults
from sandbox.repositories.build import build
from sandbox.settings import SandboxError, Settings


def _switch(folder: Path, words: list[str]) -> None:
    if not (folder / "www").is_dir():
        raise SandboxError(f"There are no repositories in {folder}. Start the sandbox: python -m sandbox up")
    faults.write(folder / "www", faults.parse(words))
    print(f"Faults that are on: {' '.join(words) or 'none'}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.repositories", description="The sandbox's repositories")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="make the tree that server.py serves, or what of it is out of date")
    command.add_argument("folder", type=Path)
    command.add_argument(
        "--kernel", help="release of the kernel to make stand-in headers for (default: the running one)"
    )
    known = "\n".join(f"  {name + '=' + '|'.join(values):36} {what}" for name, (values, what) in faults.FAULTS.items())
    command = commands.add_parser(
        "fault",
        help="break the repositories; with no fault named, mend them",
        epilog=f"The faults named are then on, and all others off:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--folder", type=Path, help="what `build` made (default: that of the running sandbox)")
    command.add_argument("faults", nargs="*", metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    try:
        if options.command == "build":
            print(json.dumps(build(options.folder, options.kernel), indent=2))
        else:
            _switch(options.folder or Settings.from_environment().repositories, options.faults)
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
