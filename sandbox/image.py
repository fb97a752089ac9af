# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that stand in for Ubuntu's cloud images: Debian with systemd, made by debootstrap from the package mirror.

Two layers: the base (kept as a tar outside the checkout, keyed by a hash of what made it), and on it a small one for
each sandbox with its certificate authority, its SSH key and the environment of the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sandbox import certificates, engine, model
from sandbox.engine import docker
from sandbox.repositories.server import APT
from sandbox.settings import SandboxError, Settings

# System -> Debian's suite. Which Ubuntu each stands in for: sandbox/ec2.py.
SYSTEMS = {"debian11": "bullseye", "debian12": "bookworm", "debian13": "trixie"}
DEFAULT_SYSTEM = "debian12"
BASE = "neuronops-sandbox-base"

# What Ubuntu's cloud images bring and Debian's minimal variant does not.
INSTALLED = (
    "ca-certificates", "curl", "dbus", "gnupg", "iproute2", "kmod", "less", "openssh-server", "procps", "python3",
    "python3-apt", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
# What the roles ask apt for: in apt's cache, so that each host need not download it again.
DOWNLOADED = (
    "acl", "build-essential", "dkms", "g++", "git", "linux-headers-cloud-amd64", "pciutils", "python3-dev",
    "python3-pip", "python3-venv", "wget",
)  # fmt: skip

FILES = Path(__file__).parent / "files"
# Where the hosts have the model that the sandbox serves.
MODEL = f"/srv/models/{model.NAME}"
KEYRING = "etc/apt/keyrings/neuronops-sandbox.asc"
TOOLS = "usr/lib/neuronops-sandbox"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# Passed on to the hosts when set to something that a container can reach.
PASSED_ON = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip


def key(system: str) -> str:
    """A hash of everything that goes into the base image of a system."""
    parts = [SYSTEMS[system], *INSTALLED, "/", *DOWNLOADED]
    content = "\n".join(parts).encode()
    for file in sorted(FILES.iterdir()):
        content += file.name.encode() + file.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


@contextlib.contextmanager
def _lock(folder: Path, what: str) -> Iterator[None]:
    """One builder at a time; the others wait and then find it built."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _label(image: str) -> str:
    return docker("image", "inspect", "--format", '{{index .Config.Labels "neuronops.key"}}', image, check=False)


def _mirrors(suite: str) -> list[str]:
    """Where debootstrap looks: its own default, then the mirrors that the machine's apt knows."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    own = {uri.rstrip("/") for uri in listed.stdout.split()}
    return ["", *sorted(own)]


def _run(command: list[str], log: Path) -> bool:
    """Run with no terminal, in a mount namespace of its own, so that nothing stays mounted in the new root."""
    environment = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "LC_ALL": "C"}
    environment.update({name: os.environ[name] for name in os.environ if name.lower().endswith("_proxy")})
    with log.open("ab") as output:
        return (
            subprocess.run(
                ["unshare", "--mount", *command], env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, check=False,
            ).returncode == 0
        )  # fmt: skip


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:])


def _build(system: str, tar: Path) -> None:
    """Make the root file system and pack it; the tar appears under its name only when complete."""
    if os.geteuid() != 0:
        raise SandboxError(
            f"The image {system} is not in {tar.parent}, and only root can make it. Run this as root once."
        )
    engine.ensure_command("debootstrap", "debootstrap")
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not keyring.exists():
        engine.install("debian-archive-keyring")
    suite = SYSTEMS[system]
    log = tar.parent / f"{system}.log"
    log.write_bytes(b"")
    # Not in /tmp, which may be too small or mounted without devices.
    with tempfile.TemporaryDirectory(dir=tar.parent, prefix=f".{system}-") as folder:
        root = Path(folder, "root")
        for mirror in _mirrors(suite):
            shutil.rmtree(root, ignore_errors=True)
            command = [
                "debootstrap", "--variant=minbase", "--force-check-gpg", f"--keyring={keyring}",
                f"--include={','.join(INSTALLED)}", suite, str(root), *([mirror] if mirror else []),
            ]  # fmt: skip
            if _run(command, log):
                break
        else:
            raise SandboxError(f"debootstrap could not make {suite} from any mirror. Its log is {log}:\n{_tail(log)}")
        tools = root / TOOLS
        tools.mkdir(parents=True)
        units = root / "etc/systemd/system"
        for file in FILES.iterdir():
            if file.suffix == ".conf":  # of the unit that the rest of its name says
                (units / f"{file.stem}.d").mkdir()
                shutil.copy(file, units / f"{file.stem}.d" / "sandbox.conf")
            else:
                shutil.copy(file, units if file.suffix == ".service" else tools)
        if not _run(["chroot", str(root), f"/{TOOLS}/setup.sh", *DOWNLOADED], log):
            raise SandboxError(f"Setting up the image {system} failed. Its log is {log}:\n{_tail(log)}")
        (root / TOOLS / "setup.sh").unlink()
        partial = Path(folder, "image.tar")
        subprocess.run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(partial), "."], check=True)
        partial.replace(tar)


def ensure_base(system: str, cache: Path) -> str:
    """Return the name of the base image of a system, made or imported when it is not there."""
    if system not in SYSTEMS:
        raise SandboxError(f"There is no image for {system!r}. There are: {', '.join(SYSTEMS)}.")
    name, wanted = f"{BASE}:{system}", key(system)
    with _lock(cache / "images", system):
        if _label(name) == wanted:
            return name
        tar = cache / "images" / f"{system}-{wanted}.tar"
        if not tar.exists():
            for stale in tar.parent.glob(f"{system}-*.tar"):
                stale.unlink()
            print(f"Making the image {system} with debootstrap (once; about a minute) ...", flush=True)
            _build(system, tar)
        docker("import", "--change", f"LABEL neuronops.key={wanted}", str(tar), name)
        docker("image", "prune", "--force", "--filter", "label=neuronops.key")
    return name


def ensure_with_git(cache: Path) -> str:
    """Return the name of the default base image with git, for the server of the repositories."""
    base, name = ensure_base(DEFAULT_SYSTEM, cache), f"{BASE}:git"
    wanted = f"{key(DEFAULT_SYSTEM)}-git"
    with _lock(cache / "images", "git"):
        if _label(name) != wanted:
            proxies = [f"--env={variable}" for variable in PASSED_ON if variable.lower().endswith("_proxy")]
            install = "apt-get -qq update && apt-get -qq -y install --no-install-recommends git >/dev/null"
            container = docker("create", *proxies, base, "sh", "-c", f"{install} && rm -rf /var/lib/apt/lists/*")
            try:
                docker("start", "--attach", container)
                docker("commit", "--change", f"LABEL neuronops.key={wanted}", container, name)
            finally:
                docker("rm", "--force", container)
    return name


def _reachable(name: str, value: str) -> bool:
    if name.lower() == "no_proxy":
        return True
    return bool(value) and not any(text in value for text in ("file:", "localhost", "127.0.0.1", "[::1]"))


def environment() -> dict[str, str]:
    """The environment of a host: where it finds certificates, and what the machine passes on."""
    certificates_at = {name: BUNDLE for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")}
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    passed = {name: value for name, value in passed.items() if _reachable(name, value)}
    if not any(name.lower() in ("http_proxy", "https_proxy") for name in passed):  # then there is nothing to go past
        passed = {name: value for name, value in passed.items() if name.lower() != "no_proxy"}
    return certificates_at | passed


def _machine_certificates(of_image: str) -> list[str]:
    """Certificates that this machine trusts and the image does not: a proxy's or a company's authority."""
    named = os.environ.get("SSL_CERT_FILE")
    if named and not Path(named).is_file():
        raise SandboxError(f"SSL_CERT_FILE names {named}, which is no file.")
    bundle = Path(named or BUNDLE)
    trusted = certificates.split(bundle.read_text()) if bundle.exists() else []
    known = set(certificates.split(of_image))
    return [certificate for certificate in trusted if certificate not in known]


def _own_files(settings: Settings, system: str) -> dict[str, str | bytes]:
    """What only a sandbox's hosts have: headers for the kernel that they share with this machine, and the model."""
    source = f"deb [signed-by=/{KEYRING}] https://{APT}/sandbox {SYSTEMS[system]} main\n"
    files: dict[str, str | bytes] = {
        "etc/apt/sources.list.d/neuronops-sandbox.list": source,
        KEYRING: (settings.served / APT / "sandbox" / "key.asc").read_bytes(),
    }
    made_by = hashlib.sha256(Path(model.__file__).read_bytes()).hexdigest()[:16]
    model_folder = settings.cache / "model" / made_by
    with _lock(model_folder.parent, made_by):
        if not model_folder.exists():
            partial = model_folder.with_suffix(".partial")
            model.write(partial)
            partial.replace(model_folder)
    files.update({f"{MODEL.lstrip('/')}/{file.name}": file.read_bytes() for file in sorted(model_folder.iterdir())})
    return files


def ensure(settings: Settings, system: str) -> str:
    """Return the name of the sandbox's image of a system, or of `git`, made when it is not there or out of date."""
    base = ensure_with_git(settings.cache) if system == "git" else ensure_base(system, settings.cache)
    own = docker("run", "--rm", "--network", "none", base, "cat", BUNDLE) + "\n"
    added = [*_machine_certificates(own), (settings.state / "ca.crt").read_text()]
    variables = environment()
    files: dict[str, str | bytes] = {
        BUNDLE.lstrip("/"): own + "".join(added),
        "etc/environment": "".join(f'{name}="{value}"\n' for name, value in variables.items()),
        "home/ubuntu/.ssh/authorized_keys": (settings.state / "id_ed25519.pub").read_text(),
    }
    files.update({f"usr/local/share/ca-certificates/sandbox-{n}.crt": text for n, text in enumerate(added)})
    if system in SYSTEMS:
        files.update(_own_files(settings, system))
    label = hashlib.sha256(repr((_label(base), sorted(files.items()))).encode()).hexdigest()
    name = f"{settings.image}:{system}"
    if _label(name) == label:
        return name
    container = docker("create", "--network", "none", base, "true")
    try:
        docker("cp", "-", f"{container}:/", stdin=_tar(files))
        changes = [
            f'CMD ["/{TOOLS}/boot"]', f"LABEL neuronops.key={label}",
            f"LABEL neuronops.sandbox={settings.name}",
            *(f'ENV {name}="{value}"' for name, value in {"container": "docker", **variables}.items()),
        ]  # fmt: skip
        docker("commit", *(argument for change in changes for argument in ("--change", change)), container, name)
    finally:
        docker("rm", "--force", container)
    return name


def _tar(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            content = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o644
            if path.startswith("home/ubuntu/"):
                member.uid = member.gid = 1000
                member.mode = 0o600
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def remove(settings: Settings) -> None:
    """Remove the sandbox's own images; the bases and their tars are the cache and stay."""
    names = docker("image", "ls", "--quiet", "--filter", f"label=neuronops.sandbox={settings.name}").split()
    if names:
        # The newest first, as they are listed: one that another was made from cannot go before it.
        docker("image", "rm", "--force", *dict.fromkeys(names))
