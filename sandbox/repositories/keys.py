# SPDX-License-Identifier: GPL-3.0-or-later
"""The signing keys of the sandbox's apt repository, made here and used by nothing else.

`signing` is the key of the repository. Its copies `expired` and `expiring` have the same fingerprint, as happened to
AWS's own key in 2022. `second` is another good key, for a key that is replaced; `wrong` is one that signs nothing here.
`own` signs what is the sandbox's own and stands in for nothing of AWS's.
"""

from __future__ import annotations

import datetime
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.settings import SandboxError

# AWS's key was made and expired on these days; the stand-in repeats it.
MADE = "20191111T000000"
EXPIRED = "2022-11-10"
EXPIRES_SOON = datetime.timedelta(days=7)
# The copy that is about to expire is made anew when it is older than this.
RENEWED_AFTER = datetime.timedelta(days=1)


@contextmanager
def _gpg_home() -> Iterator[Path]:
    """A short-lived home: gpg's sockets need a short path, and its agent must not stay."""
    if not shutil.which("gpg"):
        raise SandboxError("`gpg` is missing; it signs the sandbox's apt repository. Install the package gnupg.")
    with tempfile.TemporaryDirectory(prefix="gpg-", dir="/tmp") as name:
        try:
            yield Path(name)
        finally:
            subprocess.run(["gpgconf", "--homedir", name, "--kill", "all"], check=False, capture_output=True)


def _gpg(home: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    command = ["gpg", "--homedir", str(home), "--batch", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""]
    done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise SandboxError(f"gpg {' '.join(arguments)} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _fingerprint(home: Path, user: str) -> str:
    listing = _gpg(home, "--with-colons", "--list-keys", user).decode()
    return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))


def _make(home: Path, name: str) -> str:
    user = f"neuronops sandbox, {name} key, not AWS <{name}@neuronops.invalid>"
    _gpg(home, "--faked-system-time", f"{MADE}!", "--quick-generate-key", user, "rsa2048", "sign", EXPIRED)
    return _fingerprint(home, user)


@dataclass(frozen=True)
class Keys:
    """The folder of the private keys, and each key's fingerprint."""

    folder: Path
    fingerprints: dict[str, str]

    def public(self, name: str) -> bytes:
        return (self.folder / f"{name}.asc").read_bytes()

    @contextmanager
    def signer(self, name: str) -> Iterator[Signer]:
        with _gpg_home() as home:
            _gpg(home, "--import", stdin=(self.folder / f"{name}.private").read_bytes())
            yield Signer(home, self.fingerprints[name])


@dataclass(frozen=True)
class Signer:
    home: Path
    fingerprint: str

    def clear(self, text: bytes) -> bytes:
        return self._sign("--clear-sign", text)

    def detached(self, text: bytes) -> bytes:
        return self._sign("--detach-sign", text)

    def _sign(self, how: str, text: bytes) -> bytes:
        return _gpg(self.home, "--armor", "--digest-algo", "SHA512", "-u", self.fingerprint, how, stdin=text)


def ensure(folder: Path) -> Keys:
    """Return the keys in the folder, making them when it has none. The keys of a sandbox stay the same."""
    marker = folder / "fingerprints"
    if not marker.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        _make_all(folder, marker)
    lines = (line.split() for line in marker.read_text(encoding="ascii").splitlines())
    keys = Keys(folder, {name: fingerprint for name, fingerprint in lines})
    copy = folder / "expiring.asc"
    if not copy.exists() or time.time() - copy.stat().st_mtime > RENEWED_AFTER.total_seconds():
        with keys.signer("signing") as signer:
            soon = (datetime.datetime.now(datetime.timezone.utc) + EXPIRES_SOON).strftime("%Y%m%dT%H%M%S")
            _gpg(signer.home, "--quick-set-expire", signer.fingerprint, soon)
            copy.write_bytes(_gpg(signer.home, "--armor", "--export", signer.fingerprint))
    return keys


def _make_all(folder: Path, marker: Path) -> None:
    fingerprints = {}
    with _gpg_home() as home:
        for name in ("signing", "second", "wrong", "own"):
            fingerprint = fingerprints[name] = _make(home, name)
            if name == "signing":
                (folder / "expired.asc").write_bytes(_gpg(home, "--armor", "--export", fingerprint))
            _gpg(home, "--quick-set-expire", fingerprint, "0")
            (folder / f"{name}.asc").write_bytes(_gpg(home, "--armor", "--export", fingerprint))
            private = folder / f"{name}.private"
            private.touch(mode=0o600)
            private.write_bytes(_gpg(home, "--armor", "--export-secret-keys", fingerprint))
    text = "".join(f"{name} {fingerprint}\n" for name, fingerprint in fingerprints.items())
    marker.write_text(text, encoding="ascii")
