# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option means the same as a YAML value and as text, and what cannot be meant is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.splitter import parse_kv
from ansible.parsing.utils.yaml import from_yaml
from ansible.plugins.loader import lookup_loader
from ansible_collections.neuronops.vllm.plugins.plugin_utils import options
from ansible_collections.neuronops.vllm.plugins.plugin_utils.options import OptionError, convert, converted, unknown

OWNERS = (*options.roles(), *options.playbooks())
EVERY = [(owner, name) for owner in OWNERS for name in options.specification(owner)]
# A value of each type that no default is, so that a conversion that returns the default is seen.
SAMPLES: dict[str, list[Any]] = {
    "bool": [True, False],
    "int": [0, 1, 4711],
    "str": ["3.10", "no", "0123", "1e3", "a b"],
    "path": ["/srv/a b/c"],
    "raw": ["25%"],
    "list": [[], ["one", "3.10"]],
    "dict": [{}, {"NAME": "value"}],
}


def samples(spec: dict[str, Any]) -> list[Any]:
    """Return values that an option may have."""
    if spec.get("choices"):
        return list(spec["choices"])
    if spec.get("elements") == "dict":
        return [[{"instance_type": "inf2.xlarge", "count": 2}]]
    return SAMPLES[spec.get("type", "str")]


def as_text(value: Any) -> str:
    """Return a value as a person types it: text as it is, true and false, a number, and JSON for what has parts."""
    return value if isinstance(value, str) else json.dumps(value)


def test_every_option_of_every_role_and_playbook_is_tried() -> None:
    tried = {name for _owner, name in EVERY}
    declared = {name for owner in OWNERS for name in options.specification(owner)}
    print(f"{len(tried)} of {len(declared)} options tried as YAML, -e name=value, INI and survey text")
    assert tried == declared and len(tried) >= 100
    assert {
        "neuron_driver",
        "neuron_venv",
        "transformers_neuronx",
        "nxd_inference",
        "vllm",
        "vllm_server",
        "vllm_proxy",
        "neuron_monitoring",
        "launch",
        "terminate",
    } <= set(OWNERS)


@pytest.mark.parametrize(("owner", "name"), EVERY, ids=[name for _owner, name in EVERY])
def test_an_option_means_the_same_as_a_yaml_value_and_as_text(owner: str, name: str) -> None:
    spec = options.specification(owner)[name]
    for value in samples(spec):
        from_document = from_yaml(json.dumps({name: value}))[name]
        wanted = convert(name, from_document, spec)
        assert wanted == value and isinstance(wanted, type(value))
        # -e name=value and the key=value form of an INI line keep text as it is; so does the answer of a survey.
        given = parse_kv(f"{name}={json.dumps(as_text(value))}")[name]
        for text in (given, as_text(value)):
            assert convert(name, text, spec) == wanted, text
        # What an INI file makes of numbers, lists and dictionaries that it can read.
        if not isinstance(value, (str, bool)):
            assert convert(name, json.loads(as_text(value)), spec) == wanted


def test_ansible_hands_every_way_of_giving_an_option_on_as_the_same(tmp_path: Path) -> None:
    """All options of all roles at once: as YAML, as -e name=value, in an INI inventory, and as the text of a survey."""
    # A stack is what a lookup answers, and nobody types it.
    names = [(owner, name) for owner, name in EVERY if owner in options.roles() and not name.endswith("_stack")]
    given = {name: samples(options.specification(owner)[name])[-1] for owner, name in names}
    # As the roles do it: all options of one at once. ansible-core before 2.19 makes a text of a single number.
    answers = {owner: f"{{{{ lookup('neuronops.vllm.options', {owner!r}) }}}}" for owner, _name in names}
    copy = {"dest": "{{ playbook_dir }}/{{ way }}.json", "mode": "0600", "content": "{{ answers | to_json }}"}
    play = [
        {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.copy": copy, "vars": {"answers": answers}}]}
    ]
    (tmp_path / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    (tmp_path / "empty.ini").write_text("[neuron]\nhost1\n", encoding="utf-8")
    texts = {name: as_text(value) for name, value in given.items()}
    lines = "".join(
        f"{name}={value if isinstance(given[name], (int, list, dict)) else repr(value)}\n"
        for name, value in texts.items()
    )
    (tmp_path / "given.ini").write_text(f"[neuron]\nhost1\n[neuron:vars]\n{lines}", encoding="utf-8")
    ways = {
        "yaml": ["-i", "empty.ini", "-e", json.dumps(given)],
        "survey": ["-i", "empty.ini", "-e", json.dumps(texts)],
        "pairs": ["-i", "empty.ini", *(f"-e{name}={json.dumps(text)}" for name, text in texts.items())],
        "ini": ["-i", "given.ini"],
    }
    found = {}
    for way, arguments in ways.items():
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "play.yml", "-c", "local", "-e", f"way={way}"]
        command += ["-e", f"ansible_python_interpreter={sys.executable}", *arguments]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(options.COLLECTION / "ansible.cfg")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        answered = json.loads((tmp_path / f"{way}.json").read_text(encoding="utf-8"))
        found[way] = {name: answered[owner][name[len(owner) + 1 :]] for owner, name in names}
    assert found["yaml"] == given
    assert found["survey"] == given and found["pairs"] == given and found["ini"] == given
    assert found["ini"]["vllm_server_port"] == 4711 and found["pairs"]["neuron_driver_hold"] is False


class Counting:
    """A templar that says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def template(self, value: Any) -> Any:
        self.asked += 1
        return value


def test_options_are_templated_again_only_when_a_variable_has_changed() -> None:
    templar = Counting()
    lookup = lookup_loader.get("neuronops.vllm.options", loader=None, templar=templar)
    variables = {"vllm_server_model": "first model", "of_another": ["x"]}
    assert lookup.run(["vllm_server", "model"], variables) == ["first model"]
    assert lookup.run(["vllm_server", "model"], dict(variables)) == ["first model"] and templar.asked == 1
    variables["of_another"] = ["x"]  # equal, but what it was made from may not be
    assert lookup.run(["vllm_server", "model"], variables) == ["first model"] and templar.asked == 2
    variables["vllm_server_model"] = "second model"
    assert lookup.run(["vllm_server", "model"], variables) == ["second model"]
    del variables["vllm_server_model"]
    (asked_alone,) = lookup.run(["vllm_server", "port"], variables)
    assert asked_alone == options.specification("vllm_server")["vllm_server_port"]["default"]


def test_options_follow_the_item_of_a_loop(tmp_path: Path) -> None:
    port = "{{ lookup('neuronops.vllm.options', 'vllm_server', 'port') }}"
    task = {
        "ansible.builtin.debug": {"msg": f"it is {port} {port}."},
        "loop": [4711, 4712, 4711],
        "vars": {"vllm_server_port": "{{ item }}"},
    }
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "play.yml", "-i", "localhost,"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(options.COLLECTION / "ansible.cfg")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = [line.split("it is ")[1] for line in done.stdout.splitlines() if "it is " in line]
    assert said == ["4711 4711.", "4712 4712.", "4711 4711."], done.stdout + done.stderr


@pytest.mark.parametrize("text", ["false", "False", "no", "off", "0", " FALSE "])
def test_false_as_text_is_false(text: str) -> None:
    assert convert("neuron_driver_allow_downgrade", text, {"type": "bool"}) is False


def wrong_for(kind: str, values: tuple[Any, ...]) -> list[tuple[str, Any]]:
    return [(kind, value) for value in values]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *wrong_for("bool", ("maybe", "", 2, [], 1.0)),
        *wrong_for("int", ("eight", "8.0", 8.0, True, "", "0x10", "\u0669", "1e3")),
        *wrong_for("str", (3.1, 8, True, [], {}, "a\nb", "a\x1b[2J", "a\u2028b")),
        *wrong_for("list", ("boto3", "a,b", "", {}, 3, '{"a": 1}', [["a"]], [None])),
        *wrong_for("dict", ("a=b", '{"a": {"b": 1}', [], "[]", {1: 2})),
        *((kind, None) for kind in ("bool", "int", "str", "list", "dict")),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(kind: str, value: Any) -> None:
    with pytest.raises(OptionError, match="vllm_server_x"):
        convert("vllm_server_x", value, {"type": kind})


def test_a_number_where_a_text_is_wanted_is_told_about_quotes() -> None:
    with pytest.raises(OptionError, match=r"neuron_venv_python is 3.1 .*Write it in quotes"):
        convert("neuron_venv_python", 3.10, {"type": "str"})


def test_a_secret_is_never_in_a_message() -> None:
    for name, kind in (("vllm_server_environment", "dict"), ("vllm_server_api_key", "str")):
        for value in ("SECRET\n", "HF_TOKEN=SECRET", ["SECRET"], {"HF_TOKEN": ["SECRET"]}, {"A": "SECRET\n"}):
            try:
                convert(name, value, {"type": kind})
            except OptionError as error:
                assert "SECRET" not in str(error)


@pytest.mark.parametrize("owner", OWNERS)
def test_a_misspelt_option_is_refused_with_the_nearest_name(owner: str) -> None:
    for name in options.specification(owner):
        wrong = name[:-2] + name[-1] + name[-2] + "x"
        said = unknown(owner, [name, wrong, "another_variable", "_" + wrong])
        assert len(said) == 1 and said[0].startswith(f"{wrong} is no option of") and "did you mean" in said[0]


def test_a_variable_belongs_to_the_role_with_the_longer_prefix() -> None:
    assert unknown("vllm", ["vllm_server_port", "vllm_server_prot"]) == []
    assert len(unknown("vllm_server", ["vllm_server_prot", "vllm_prot"])) == 1
    assert unknown("site", ["neuron_driver_holt", "neuron_stack"]) == []


def test_a_password_of_a_proxy_is_refused_with_the_way_out() -> None:
    with pytest.raises(OptionError, match=r"neuron_driver_environment.HTTPS_PROXY holds .*apt.conf.d") as refused:
        convert("neuron_driver_environment", {"HTTPS_PROXY": "http://user:SECRET@proxy:3128"}, {"type": "dict"})
    assert "SECRET" not in str(refused.value)
    assert convert("neuron_driver_environment", {"HTTPS_PROXY": "http://proxy:3128"}, {"type": "dict"})


@pytest.mark.parametrize(
    ("source", "secret"),
    [
        ("ssh://git@gitlab.example.com:2222/ml/vllm.git", False),
        ("git+ssh://git@gitlab.example.com/ml/vllm.git", False),
        ("git@mirror.example:ml/vllm", False),
        ("https://mirror.example/a@b/vllm.git", False),
        ("/srv/a@b/vllm.git", False),
        ("ssh://git:SECRET@gitlab.example.com/ml/vllm.git", True),
        ("https://SECRET@mirror.example/vllm.git", True),
        ("HTTPS://me:SECRET@mirror.example/vllm.git", True),
        ("me:SECRET@mirror.example:vllm", True),
    ],
)
@pytest.mark.parametrize(
    "name", ["vllm_source", "vllm_plugin_source", "vllm_wheel_mirror", "neuron_venv_index_url", "vllm_wheelhouse"]
)
def test_an_address_that_holds_a_secret_is_refused_by_its_parts(name: str, source: str, secret: bool) -> None:
    if not secret:
        assert convert(name, source, {"type": "str"}) == source
        return
    with pytest.raises(OptionError, match=f"{name} holds a user or a password") as refused:
        convert(name, source, {"type": "str"})
    assert "SECRET" not in str(refused.value)


def test_what_is_not_set_has_its_default_and_what_is_required_is_missed() -> None:
    found, wrong = converted(
        "launch",
        {"launch_groups": [], "launch_wait_for_ssh": "false"},
        {"launch_groups": [], "launch_wait_for_ssh": "false"}.get,
    )
    assert found["wait_for_ssh"] is False and found["root_volume_size"] == 512 and found["fleet"] == "neuron"
    assert wrong == [] and converted("launch", {}, str)[1] == ["launch_groups is required, and is not set"]
    assert "instance_ids" not in converted("terminate", {}, str)[0]


@pytest.mark.parametrize("playbook", ["launch", "terminate"])
@pytest.mark.parametrize("fleet", ["", " ", "*", "team?", "a\\b"])
def test_the_name_of_a_fleet_finds_that_fleet_alone(playbook: str, fleet: str) -> None:
    variables = {f"{playbook}_fleet": fleet, "launch_groups": []}
    (wrong,) = converted(playbook, variables, variables.__getitem__)[1]
    assert wrong.startswith(f"{playbook}_fleet is {fleet!r}, and should be a name without")


def test_entries_of_a_list_of_dictionaries_are_checked() -> None:
    spec = options.specification("launch")["launch_groups"]
    assert convert("launch_groups", [{"instance_type": "inf2.xlarge", "count": "2"}], spec)[0]["count"] == 2
    incomplete, misspelt = {"instance_type": "inf2.xlarge"}, {"instance_typ": "x", "count": 1}
    for wrong, said in ((incomplete, "count is required"), (misspelt, "did you mean instance_type")):
        with pytest.raises(OptionError, match=said):
            convert("launch_groups", [wrong], spec)


@pytest.mark.parametrize("name", options.MULTILINE)
def test_a_key_has_several_lines(name: str) -> None:
    owner = next(role for role in options.roles() if name in options.specification(role))
    assert convert(name, "-----BEGIN\n\nabc\n-----END\n", options.specification(owner)[name]).count("\n") == 4


def test_every_option_for_a_key_takes_several_lines() -> None:
    keys = {name for _owner, name in EVERY if name.endswith(("source_key", "repository_key"))}
    assert keys == set(options.MULTILINE)
