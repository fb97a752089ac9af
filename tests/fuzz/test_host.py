# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says is understood in its form, or it is none: no traceback, and never "fine"."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.neuronops.vllm.plugins.module_utils import host, neuron_ls
from hypothesis import given
from hypothesis import strategies as st

RELEASES = ["5.15.0-1-aws", "6.8.0-1021-aws"]
NOISE = st.text(max_size=60)
NAMES = st.sampled_from(["aws-neuronx-dkms", "aws-neuronx-tools", "", "x\ty", "{{ x }}"]) | NOISE
VERSIONS = st.sampled_from(["2.21.37.0", "2.21.37.0_abc", "2.21.37.0-1", ""]) | NOISE
STATES = (
    st.sampled_from(["install ok installed", "hold ok installed", "install ok half-configured", "a b c", ""]) | NOISE
)


def joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    lines = st.lists(st.tuples(*parts).map("\t".join) | NOISE, max_size=4)
    return st.tuples(lines, st.sampled_from(["\n", "\r\n", "\n\n"])).map(lambda found: found[1].join(found[0]))


def says(status: int, output: str) -> Callable[[list[str]], tuple[int, str, str]]:
    return lambda _command: (status, output, "")


@given(output=joined(NAMES, VERSIONS, STATES), status=st.sampled_from([0, 1, 2]))
def test_what_dpkg_query_says_has_its_columns(
    output: str, status: int, tmp_path: Path, tried: Callable[[str], None]
) -> None:
    tried("dpkg-query")
    for found in host.packages(says(status, output), str(tmp_path)).values():
        assert set(found) == {"version", "held", "state"}
        assert f"\t{found['version']}\t" in output.replace("\r", "")
    assert host.dpkg_interrupted(says(status, output), str(tmp_path)) in (True, False)


@given(output=joined(NAMES, VERSIONS), status=st.sampled_from([0, 1, 127]))
def test_what_rpm_says_has_its_columns(output: str, status: int, tmp_path: Path, tried: Callable[[str], None]) -> None:
    tried("rpm")
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/os-release").write_text('ID="amzn"\n', encoding="utf-8")
    found = host.packages(says(status, output), str(tmp_path))
    assert status == 0 or found == {}
    assert all(entry["version"] for entry in found.values())


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["neuron_device", "nc_count", "neuroncore_ids", "bdf", "memory_size", "connected_to", "instance_type"]
KEYS += ["instance_id", "neuron_processes"]
GOOD = {
    "neuron_device": 0, "bdf": "00:1e.0", "nc_count": 2, "memory_size": 34359738368, "connected_to": [1],
    "neuron_processes": [{"pid": 7, "command": "python", "neuron_runtime_version": "2.20"}],
}  # fmt: skip
ENTRIES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3).map(lambda changes: {**GOOD, **changes})


@given(output=st.lists(ENTRIES, max_size=3).map(json.dumps) | VALUES.map(json.dumps) | NOISE | st.just("[" * 100000))
def test_what_neuron_ls_says_is_devices_or_an_error(output: str, tried: Callable[[str], None]) -> None:
    tried("neuron-ls")
    try:
        devices = neuron_ls.parse(output)
    except ValueError as error:
        assert str(error)
        return
    for device in devices:
        assert isinstance(device["cores"], int) and 0 <= device["cores"] <= 1000
        assert all(isinstance(number, int) for number in device["core_ids"] + device["connected_to"])
        assert json.loads(output)[devices.index(device)]["neuron_device"] == device["index"]
        assert all(set(process) == {"pid", "command", "runtime_version"} for process in device["processes"])


@given(
    log=st.lists(st.just("neuron: Neuron Driver Started with Version:2.21.37.0-abc") | NOISE, max_size=4).map("\n".join)
)
def test_what_the_kernel_log_says_is_a_version_or_not_known(
    log: str, tmp_path: Path, tried: Callable[[str], None]
) -> None:
    tried("kernel log")
    (tmp_path / "sys/module/neuron").mkdir(parents=True, exist_ok=True)
    loaded = host.driver(says(0, log), {}, RELEASES[0], RELEASES[0], str(tmp_path))["loaded"]
    assert loaded == ("2.21.37.0" if "Version:2.21.37.0" in log else "unknown")


PROPERTIES = ["MainPID", "LoadState", "ActiveState", "SubState", "UnitFileState", "Id"]
PROPERTY = st.tuples(st.sampled_from(PROPERTIES), NOISE | st.sampled_from(["active", "loaded", "0", "1", "²"])).map(
    "=".join
)


@given(output=st.lists(PROPERTY | NOISE, max_size=6).map("\n".join), status=st.sampled_from([0, 1, 127]))
def test_what_systemctl_says_is_a_state(output: str, status: int, tmp_path: Path, tried: Callable[[str], None]) -> None:
    tried("systemctl")
    (found,) = host.services(says(status, output), ["vllm"], str(tmp_path))
    assert found["main_pid"] is None or found["main_pid"] > 0
    assert status == 0 or (found["load_state"], found["active_state"]) == ("not-found", "inactive")


LINES = st.sampled_from(
    ["GRUB_DEFAULT=saved", "GRUB_DEFAULT=0", 'GRUB_DEFAULT="1>2"', f'GRUB_DEFAULT="Ubuntu, with Linux {RELEASES[0]}"',
     f"saved_entry={RELEASES[0]}", "next_entry=../../etc/passwd", f"linux /boot/vmlinuz-{RELEASES[1]}", "ID=amzn"]
)  # fmt: skip
FILES = ["etc/default/grub", "boot/grub/grubenv", "boot/grub2/grubenv", "boot/loader/entries/a.conf", "proc/version"]
CONTENT = st.lists(LINES | NOISE, max_size=4).map("\n".join)


@given(files=st.dictionaries(st.sampled_from(FILES), CONTENT, max_size=5))
def test_the_next_kernel_is_an_installed_one_or_not_known(
    files: dict[str, str], tmp_path: Path, tried: Callable[[str], None]
) -> None:
    tried("boot loader")
    for release in RELEASES:
        (tmp_path / "lib/modules" / release).mkdir(parents=True, exist_ok=True)
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / f"boot/vmlinuz-{release}").touch()
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(files.get(name, ""), encoding="utf-8", errors="replace")
    found = host.kernel(RELEASES[1], str(tmp_path))
    assert found["newest"] in RELEASES
    assert found["next_unknown"] is None or found["newest"] == RELEASES[1]


@given(content=VALUES.map(json.dumps) | NOISE | st.just('{"packages": ["a"], "stack": "x"}') | st.just("[" * 100000))
def test_the_roles_own_record_is_one_or_none(content: str, tmp_path: Path, tried: Callable[[str], None]) -> None:
    tried("record")
    file = tmp_path / host.RECORD.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8", errors="replace")
    found = host.record(str(tmp_path))
    assert found is None or all(isinstance(name, str) for name in found["packages"])
