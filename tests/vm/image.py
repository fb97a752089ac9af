# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual machine's disk: the sandbox's Debian with a kernel of its own and a stand-in for Neuron hardware.

Kept outside the checkout under a hash of what made it, because making it takes a minute.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sandbox import engine, image
from sandbox.settings import SandboxError

HERE = Path(__file__).parent
SYSTEM = "debian12"
SIZE = "8G"  # sparse; about 1.2 GB are used


@dataclass(frozen=True)
class Disk:
    """A disk image, the key of its users, the release of its kernel and of the newer one that it can install."""

    path: Path
    ssh_key: Path
    kernel: str
    newer_kernel: str


def ensure(cache: Path) -> Disk:
    """Return the disk, made when it is not there. A test works on a copy of it."""
    engine.ensure_command("mke2fs", "e2fsprogs")
    engine.ensure_command("ssh-keygen", "openssh-client")
    image.ensure_base(SYSTEM, cache)
    base = cache / "images" / f"{SYSTEM}-{image.key(SYSTEM)}.tar"
    made_from = [HERE / "image.py", HERE / "setup.sh", *sorted((HERE / "hardware").iterdir())]
    digest = hashlib.sha256(base.name.encode() + b"".join(file.read_bytes() for file in made_from))
    folder = cache / "vm" / digest.hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for stale in (path for path in folder.parent.iterdir() if path.is_dir()):
                shutil.rmtree(stale)
            _make(base, folder)
    kernel, newer_kernel = (folder / "kernels").read_text().split()
    return Disk(folder / "disk.img", folder / "id_ed25519", kernel, newer_kernel)


def _make(base: Path, folder: Path) -> None:
    if os.geteuid() != 0:
        raise SandboxError("Only root can make the disk of the virtual machine. Run `make test-vm` as root once.")
    print(f"Making the disk of the virtual machine in {folder} (once; about a minute) ...", flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as work:
        root, new = Path(work, "root"), Path(work, "new")
        root.mkdir()
        new.mkdir()
        new.chmod(0o700)
        subprocess.run(["tar", "--numeric-owner", "-C", str(root), "-xf", str(base)], check=True)
        shutil.copytree(HERE / "hardware", root / "usr/src/stand-in-hardware-1")
        shutil.copy(HERE / "setup.sh", root / "setup.sh")
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        _chroot(root, folder.parent / "setup.log")
        (root / "setup.sh").unlink()
        (root / "kernels").rename(new / "kernels")
        # The name server that QEMU offers its guests.
        (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
        key = new / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        for home, owner in (("root", 0), ("home/ubuntu", 1000)):
            keys = root / home / ".ssh/authorized_keys"
            keys.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copy(key.with_suffix(".pub"), keys)
            os.chown(keys.parent, owner, owner)
            os.chown(keys, owner, owner)
        command = ["mke2fs", "-q", "-t", "ext4", "-d", str(root), "-F", str(new / "disk.img"), SIZE]
        subprocess.run(command, check=True)
        new.rename(folder)


def _chroot(root: Path, log: Path) -> None:
    """Run setup.sh in name spaces of its own, so that nothing it mounts or starts stays."""
    script = f"mount -t proc proc {root}/proc && exec chroot {root} /bin/sh /setup.sh"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    environment.update({name: os.environ[name] for name in os.environ if name.lower().endswith("_proxy")})
    with log.open("wb") as output:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
        raise SandboxError(f"The disk of the virtual machine could not be made. The log is {log}:\n{tail}")
