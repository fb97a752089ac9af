# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m sandbox: start and remove the stand-ins for AWS on this machine.

    up [--no-ec2] [--system debian11]   network, images, repositories and EC2; a second `up` changes nothing
    down                                remove all of it; what is worth keeping stays in the cache
    status                              what runs, and where
    env                                 shell lines that point AWS tools and Ansible at it: . <(python -m sandbox env)

NEURONOPS_SANDBOX_NAME    its name (neuronops-sandbox): several can run side by side with different
NEURONOPS_SANDBOX_SUBNET  networks (10.203.0.0/24)
NEURONOPS_SANDBOX_EC2_PORT  the loopback port of the stand-in for EC2 (a free one)
NEURONOPS_CACHE           what is kept between runs (~/.cache/neuronops)
"""

from __future__ import annotations

import argparse
import shlex
import sys

from sandbox import ec2, environment, hosts, image, lifecycle
from sandbox.settings import SandboxError, Settings


def _status(settings: Settings) -> int:
    entries = hosts.listing(settings)
    state = ec2.read(settings)
    if not entries and not state:
        print(f"{settings.name}: not running")
        return 1
    print(f"{settings.name} on {settings.subnet}")
    print(f"  EC2: {state['endpoint'] if state else 'not running'}")
    for entry in entries:
        print(f"  {entry['name']}: {entry['state']} at {entry['address'] or 'no address'}")
    return 0


def main() -> int:
    environment.enter()
    parser = argparse.ArgumentParser(
        prog="python -m sandbox", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start it")
    up.add_argument("--no-ec2", action="store_true", help="only the network, the images and the repositories")
    up.add_argument("--system", action="append", choices=list(image.SYSTEMS), help="an image to have besides debian12")
    for name in ("down", "status", "env"):
        commands.add_parser(name)
    arguments = parser.parse_args()
    try:
        settings = Settings.from_environment()
        if arguments.command == "up":
            lifecycle.up(settings, ec2_too=not arguments.no_ec2, systems=arguments.system or [])
            return _status(settings)
        if arguments.command == "down":
            lifecycle.down(settings)
        elif arguments.command == "status":
            return _status(settings)
        else:
            for name, value in lifecycle.environment(settings).items():
                print(f"export {name}={shlex.quote(value)}")
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
