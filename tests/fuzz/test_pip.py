# SPDX-License-Identifier: GPL-3.0-or-later
"""pip.conf is read as pip itself reads it, and changed so that pip reads what was wanted and all else as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import forms, pip_settings
from ansible_collections.neuronops.vllm.plugins.modules import pip_configuration
from hypothesis import given
from hypothesis import strategies as st
from pip._internal.configuration import Configuration
from pip._internal.exceptions import ConfigurationError

URL = "https://pip.repos.neuron.amazonaws.com"
LINES = st.sampled_from(
    [
        "[global]",
        "[install]",
        "[download]",
        "[DEFAULT]",
        "[Global]",
        " [global]",
        "[global] # x",
        "extra-index-url = https://a.example.com/simple",
        "extra_index_url = https://b.example.com/simple",
        "Extra-Index-URL: https://c.example.com/simple https://d.example.com",
        "--extra-index-url = https://e.example.com",
        "extra-index-url =",
        "extra-index-url",
        "    https://f.example.com/simple",
        "  # a comment",
        "# a comment",
        "; another",
        "",
        "   ",
        "\t" + URL + "/",
        "  extra-index-url = https://g.example.com",
        "index-url = https://h.example.com/simple",
        "timeout = 60",
        "= nothing",
        "cert = /x ; y",
        "\ufeff[global]",
        "a = %(b)s",
        "proxy = \u00e4",
        "x\x0cy = 1",
        "\x85",
    ]
)
FILES = st.lists(st.one_of(LINES, LINES, st.text(max_size=12)), max_size=12).map("\n".join)


def read_by_pip(path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str] | None:
    """Return what pip's own code reads of a file alone, or None where it refuses the file."""
    monkeypatch.setattr(Configuration, "iter_config_files", lambda _self: [("site", [str(path)]), ("env", [])])
    configuration = Configuration(isolated=True)
    try:
        configuration.load()
    except (ConfigurationError, AttributeError, TypeError, ValueError):
        return None
    return {key: value for key, value in configuration.items() if value}


def words(found: dict[str, str], option: str) -> list[str]:
    """Return the words that `pip install` takes for an option."""
    return (found.get(f"install.{option}") or found.get(f"global.{option}") or "").split()


@given(text=FILES)
def test_a_file_is_read_as_pip_reads_it_or_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Callable[[str], None]
) -> None:
    tried("pip.conf")
    path = tmp_path / "pip.conf"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    expected = read_by_pip(path, monkeypatch)
    try:
        sections = pip_settings.read(str(path))
    except pip_settings.SettingsError:
        assert expected is None
        return
    assert expected is not None
    found = {
        f"{section}.{name}": value
        for section, options in sections.items()
        for name, value in {pip_settings.option_name(key): value for key, value in options.items()}.items()
        if value
    }
    aliases = {
        f"{section}.{old}": f"{section}.{new}" for section in sections for old, new in pip_settings.ALIASES.items()
    }
    assert found == {aliases.get(key, key): value for key, value in expected.items()}


@given(text=FILES, options=st.sampled_from([{}, {"index-url": "https://wanted.example.com/simple", "cert": "/wanted"}]))
def test_a_file_is_changed_as_pip_reads_it(
    text: str,
    options: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tried: Callable[[str], None],
) -> None:
    tried("pip.conf, changed")
    path = tmp_path / "pip.conf"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    before = read_by_pip(path, monkeypatch)
    try:
        with path.open(encoding="utf-8") as file:
            after = pip_configuration.configured(file.read(), [URL], options)
    except (pip_settings.SettingsError, forms.FormError, UnicodeDecodeError):
        return
    path.write_text(after, encoding="utf-8")
    found = read_by_pip(path, monkeypatch)
    assert before is not None
    assert found is not None
    indexes = words(found, "extra-index-url")
    assert [url.rstrip("/") for url in indexes].count(URL) >= 1
    assert set(words(before, "extra-index-url")) <= set(indexes)
    for option, value in options.items():
        assert words(found, option) == [value]
    changed = {"extra-index-url", *options}
    untouched = {key: value for key, value in before.items() if key.partition(".")[2] not in changed}
    assert untouched == {key: value for key, value in found.items() if key.partition(".")[2] not in changed}
    assert pip_configuration.configured(after, [URL], options) == after, "once"
