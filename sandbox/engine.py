# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine: use the one that answers, else install and start one where that is our business."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from sandbox.settings import SandboxError, cache_folder

START_SECONDS = 60
# How long, and how often, a held lock of apt is tried again.
APT_LOCK_SECONDS = 600
APT_LOCK_PAUSE = 5.0


def docker(*arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
    """Run `docker` and return what it printed; with check, a failure is an error with docker's own words."""
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=False)
    if check and done.returncode:
        raise SandboxError(f"docker {' '.join(arguments[:2])} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace").strip()


def _complaint() -> str | None:
    """Why no engine answers, in docker's words; None when one does."""
    if not shutil.which("docker"):
        return "there is no docker command"
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 and done.stdout.strip() else (done.stderr.strip() or "no engine answers")


def answers() -> bool:
    return _complaint() is None


def _pid_file() -> Path:
    return cache_folder() / "dockerd.pid"


def ensure() -> None:
    """Return when an engine answers; raise SandboxError when none does and none may be started here."""
    complaint = _complaint()
    if complaint is None:
        return
    if os.environ.get("DOCKER_HOST"):
        raise SandboxError(f"No Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: {complaint}.")
    if "permission denied" in complaint.lower():
        raise SandboxError(
            "A Docker engine runs here, but you may not use it. Join the group `docker` or become root, then try again."
        )
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SandboxError(
            f"The sandbox needs a Docker engine, and none answers ({complaint}). It can be installed for you only as "
            "root on Debian or Ubuntu. Install and start Docker (Debian: `apt-get install docker.io`), then try again."
        )
    if not shutil.which("dockerd"):
        install("docker.io")
    _start()


def install(package: str, command: str | None = None) -> None:
    """Install a package of the machine's system, unless its command is there by now; we are root.

    Images are made side by side, and parts of the tests run so: one of them installs at a time.
    """
    # A policy-rc.d of the machine, not ours, decides whether the package's service starts: _start() copes with both.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if command and shutil.which(command):
            return
        print(f"Installing {package} ...", flush=True)
        _apt(["apt-get", "-qq", "update"], environment)
        _apt(["apt-get", "-qq", "-y", "install", package], environment)


def _apt(command: list[str], environment: dict[str, str]) -> None:
    """Run apt-get; a lock that is held, as by a new machine's first update of itself, is waited for."""
    deadline = time.monotonic() + APT_LOCK_SECONDS
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        locked = "Could not get lock" in done.stderr or "Unable to acquire" in done.stderr
        if not locked or time.monotonic() > deadline:
            raise SandboxError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-2000:]}")
        time.sleep(APT_LOCK_PAUSE)


def ensure_command(command: str, package: str) -> None:
    """Have a command of the system, installing its package when we are root on Debian or Ubuntu."""
    if shutil.which(command):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SandboxError(f"`{command}` is missing. Install the package {package}, or run this as root.")
    install(package, command)


def _start() -> None:
    """Start the installed engine: as the machine's service where systemd runs, else in a session of its own."""
    if _complaint() is None:
        return
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], check=False)
        where = "`journalctl -u docker`"
        process = None
    else:
        cache_folder().mkdir(parents=True, exist_ok=True)
        log = cache_folder() / "dockerd.log"
        where = str(log)
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        _pid_file().write_text(str(process.pid))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if _complaint() is None:
            return
        time.sleep(0.5)
    stop_if_ours()
    raise SandboxError(f"The Docker engine did not start within {START_SECONDS} s. Its log is {where}.")


def stop_if_ours() -> None:
    """Stop the engine that _start() started, unless somebody's container still runs on it."""
    try:
        pid = int(_pid_file().read_text())
        ours = Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd"
    except (OSError, ValueError):
        return
    if ours and _complaint() is None and docker("ps", "--quiet"):
        return
    if ours:
        os.kill(pid, signal.SIGTERM)
        for _ in range(60):
            if not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                break
            time.sleep(0.25)
    _pid_file().unlink(missing_ok=True)
