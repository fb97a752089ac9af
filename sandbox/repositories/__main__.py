# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m sandbox.repositories build FOLDER` and `... fault FOLDER [NAME=VALUE ...]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sandbox.repositories import faults
from sandbox.repositories.build import build
from sandbox.settings import SandboxError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.repositories", description="The sandbox's repositories")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="make the tree that server.py serves, or what of it is out of date")
    command.add_argument("folder", type=Path)
    command.add_argument(
        "--kernel", help="release of the kernel to make stand-in headers for (default: the running one)"
    )
    known = "; ".join(f"{name}={'|'.join(values)}: {what}" for name, (values, what) in faults.FAULTS.items())
    command = commands.add_parser("fault", help="break the repositories; with no fault named, mend them", epilog=known)
    command.add_argument("folder", type=Path)
    command.add_argument("faults", nargs="*", metavar="NAME=VALUE")
    options = parser.parse_args()
    try:
        if options.command == "build":
            print(json.dumps(build(options.folder, options.kernel), indent=2))
        else:
            faults.write(options.folder / "www", faults.parse(options.faults))
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
