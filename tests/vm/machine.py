# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual machine under QEMU's emulation, which needs no KVM: a real kernel to build and load modules for."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

from plugins.module_utils.versions import numbers
from sandbox import engine
from tests.vm.image import Disk

BOOT_SECONDS = 300


class Machine:
    """One machine with a disk of its own, a copy that goes with `folder`.

    What a boot loader does is done here: each time the machine starts, the newest kernel on its disk is booted. So a
    `reboot` inside ends QEMU, and another one starts.
    """

    def __init__(self, disk: Disk, folder: Path, console: Path) -> None:
        engine.ensure_command("qemu-system-x86_64", "qemu-system-x86")
        engine.ensure_command("debugfs", "e2fsprogs")
        self.folder, self.console, self.ssh_key = folder, console, folder / "id_ed25519"
        self.boots = 0
        self.port = _free_port()
        self._image = folder / "disk.img"
        subprocess.run(["cp", "--sparse=always", str(disk.path), str(self._image)], check=True)
        shutil.copy(disk.ssh_key, self.ssh_key)
        self.ssh_key.chmod(0o600)
        console.write_bytes(b"")
        self._stopping = False
        self._qemu: subprocess.Popen[bytes] | None = None
        self._problem: Exception | None = None
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def start(self) -> None:
        self._supervisor.start()
        deadline = time.monotonic() + BOOT_SECONDS
        while self.run("true", check=False, seconds=30).returncode:
            if self._problem:
                raise self._problem
            if time.monotonic() > deadline:
                raise TimeoutError(f"The machine did not answer in {BOOT_SECONDS} seconds; see {self.console}.")
            time.sleep(1)

    def stop(self) -> None:
        self._stopping = True
        if self._qemu:
            self._qemu.kill()
        self._supervisor.join()

    def run(
        self, command: str, stdin: str = "", check: bool = True, seconds: int = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside, as root."""
        ssh = ["ssh", *self.ssh_options, "-i", str(self.ssh_key), "-p", str(self.port), "root@127.0.0.1", command]
        try:
            done = subprocess.run(ssh, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            done = subprocess.CompletedProcess(ssh, 255, "", "timed out")
        if check and done.returncode:
            raise AssertionError(f"{command!r} failed with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    @property
    def ssh_options(self) -> list[str]:
        """The machine is new and on the loopback: its host key is accepted once and then held to."""
        known_hosts = self.folder / "known_hosts"
        options = {
            "UserKnownHostsFile": known_hosts,
            "StrictHostKeyChecking": "accept-new",
            "ConnectTimeout": 20,
            "LogLevel": "ERROR",
        }
        return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    def _supervise(self) -> None:
        try:
            while not self._stopping:
                kernel = self._newest_kernel()
                for file in ("vmlinuz", "initrd.img"):
                    self._debugfs(f"dump /boot/{file}-{kernel} {self.folder / file}")
                with self.console.open("ab") as output:
                    self._qemu = subprocess.Popen(
                        self._command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
                    )
                self.boots += 1
                self._qemu.wait()
                if b"Kernel panic" in self.console.read_bytes():
                    raise RuntimeError(f"The machine's kernel {kernel} panicked; see {self.console}.")
        except Exception as problem:
            self._problem = problem

    def _newest_kernel(self) -> str:
        names = re.findall(r"/vmlinuz-([^/]+)/", self._debugfs("ls -p /boot"))
        newest: str = max(names, key=numbers)
        return newest

    def _debugfs(self, request: str) -> str:
        done = subprocess.run(["debugfs", "-R", request, str(self._image)], capture_output=True, text=True, check=True)
        output: str = done.stdout
        return output

    def _command(self) -> list[str]:
        return [
            # Without cx16, whose emulation in Debian 12's QEMU 7.2 corrupts the flags: Linux 6.12 dies of it.
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max,-cx16", "-smp", "2", "-m", "2048",
            "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", str(self.folder / "vmlinuz"), "-initrd", str(self.folder / "initrd.img"),
            "-append", "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 panic=-1",
            "-drive", f"file={self._image},if=virtio,format=raw,cache=unsafe",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:22", "-device", "virtio-net-pci,netdev=net",
            "-device", "virtio-rng-pci",
        ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
