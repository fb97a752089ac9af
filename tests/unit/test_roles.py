# SPDX-License-Identifier: GPL-3.0-or-later
"""What every role of the collection must have: an option is documented once, and has its default once."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.neuronops.vllm.plugins.plugin_utils import options

from docs.role_options import renewed
from tests.unit.role_variables import read, value

CHECKOUT = Path(__file__).resolve().parents[2]
# The roles `options` and `neuron_packages` have none of their own: they check, or act on, those of the others.
WITH_OPTIONS = sorted(path.parent.parent for path in CHECKOUT.glob("roles/*/meta/argument_specs.yml"))
# The role `fleet` acts on AWS: its options are those of launch, terminate and bake_image, with the defaults of the
# specification alone, and its proof is tests/fleet and tests/bake, which run them against moto's EC2.
FLEET = CHECKOUT / "roles" / "fleet"
ROLES = [role for role in WITH_OPTIONS if role != FLEET]


def options_and_defaults(role: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the documented options of a role and its defaults."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}
    return specs["main"]["options"], defaults


def test_there_are_the_eight_roles() -> None:
    assert {role.name for role in ROLES} == {
        "neuron_driver",
        "neuron_venv",
        "transformers_neuronx",
        "nxd_inference",
        "vllm",
        "vllm_server",
        "vllm_proxy",
        "neuron_monitoring",
    }


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_argument_specs_name_the_same_options(role: Path) -> None:
    documented, defaults = options_and_defaults(role)
    optional = {name for name, option in documented.items() if not option.get("required")}
    assert optional == set(defaults)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_documented_default_is_the_default(role: Path) -> None:
    specified, defaults = options_and_defaults(role)
    # A template is no value of its option's type, so the specification cannot hold it; the README shows it.
    templates = {
        name
        for name, value in defaults.items()
        if "{{" in str(value) and specified[name]["type"] not in ("str", "path")
    }
    documented = {name: option.get("default") for name, option in specified.items() if not option.get("required")}
    assert {name: value for name, value in documented.items() if name not in templates} == {
        name: value for name, value in defaults.items() if name not in templates
    }


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_has_the_roles_name_a_type_and_a_description(role: Path) -> None:
    documented, _defaults = options_and_defaults(role)
    for name, option in documented.items():
        assert name.startswith(f"{role.name}_")
        assert option.get("type")
        assert option.get("description")


@pytest.mark.parametrize("role", WITH_OPTIONS, ids=lambda role: role.name)
def test_the_readme_shows_the_options_as_they_are(role: Path) -> None:
    assert (role / "README.md").read_text() == renewed(role), "run `make docs`"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_has_a_scenario(role: Path) -> None:
    assert (CHECKOUT / "molecule" / role.name / "molecule.yml").is_file()


def test_the_playbooks_for_aws_are_entry_points_of_the_role_fleet() -> None:
    specs = yaml.safe_load((FLEET / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    assert set(specs) == {"launch", "terminate", "bake_image"}
    for point, spec in specs.items():
        assert (FLEET / "tasks" / f"{point}.yml").is_file()
        # What checks the options reads them here, and nowhere else.
        assert options.specification(point) == spec["options"]
        assert point not in yaml.safe_load((CHECKOUT / "data" / "options.yml").read_text())
        for name, option in spec["options"].items():
            assert name.startswith(f"{point}_") and option["type"] and option["description"]
            if "default" in option:
                assert options.convert(name, option["default"], option) == option["default"]
        used = set(re.findall(rf"\b{point}_[a-z_]+", (CHECKOUT / "playbooks" / f"{point}.yml").read_text()))
        assert used <= set(spec["options"])


def test_ansible_doc_shows_the_options_of_the_playbooks_for_aws() -> None:
    command = ["ansible-doc", "-t", "role", "neuronops.vllm.fleet", "--json"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True)
    points = json.loads(done.stdout)["neuronops.vllm.fleet"]["entry_points"]
    for point, spec in points.items():
        assert set(spec["options"]) == set(options.specification(point))
    assert set(points) == {"launch", "terminate", "bake_image"}


@pytest.mark.parametrize(
    ("role", "option"),
    [
        ("neuron_venv", "neuron_venv_lock_path"),
        ("transformers_neuronx", "transformers_neuronx_lock_path"),
        ("nxd_inference", "nxd_inference_lock_path"),
        ("vllm", "vllm_lock_path"),
        ("vllm", "vllm_wheel_path"),
    ],
)
def test_what_the_controller_keeps_is_beside_the_inventory(role: str, option: str) -> None:
    name = "wheels" if option == "vllm_wheel_path" else "locks"
    defaults = read(role, "defaults")
    assert value(option, {**defaults, "inventory_dir": "/fleet"}) == f"/fleet/.neuronops/{name}"
    # `-i host,` gives the text None, add_host the value, and no inventory at all nothing.
    for known in (defaults, {**defaults, "inventory_dir": "None"}, {**defaults, "inventory_dir": None}):
        assert value(option, known) == f"./.neuronops/{name}"
    for place in ("/srv/neuronops", "s3://my-bucket/neuronops"):
        assert value(option, {**defaults, "inventory_dir": "/fleet", "neuron_state": place}) == f"{place}/{name}"
    assert value(option, {**defaults, "inventory_dir": "/fleet", "neuron_state": ""}) == f"/fleet/.neuronops/{name}"


def test_a_servers_variables_are_the_stacks_and_the_users_before_them() -> None:
    known = {
        **read("vllm_server", "vars"),
        "vllm_server_stack": {"server": {"environment": {"OF_THE_STACK": "1", "OF_BOTH": "1"}}},
        "vllm_server_environment": {"OF_BOTH": "0", "OF_THE_USER": "0"},
    }
    expected = {"OF_THE_STACK": "1", "OF_BOTH": "0", "OF_THE_USER": "0"}
    assert value("_vllm_server_environment", known) == expected


@pytest.mark.parametrize(
    ("reboot", "may", "reboots"),
    [("when_needed", None, True), ("when_needed", True, True), ("when_needed", "False", False), ("never", True, False)],
)
def test_the_driver_reboots_a_host_only_where_what_it_serves_may_stop(reboot: str, may: Any, reboots: bool) -> None:
    known = {**read("neuron_driver", "vars"), "_neuron_driver": {"reboot": reboot}}
    if may is not None:  # site.yml says so; on ansible-core 2.17 as a text
        known["__neuron_driver_may_reboot"] = may
    assert value("__neuron_driver_reboots", known) in (reboots, str(reboots))


# What is a fact of the site, and not of a role, is said once; a mirror was asked by all roles but one.
@pytest.mark.parametrize("role", ["transformers_neuronx", "nxd_inference", "vllm"])
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("installer", "pip"),
        ("lock_path", "/srv/locks"),
        ("lock_refresh", True),
        ("lock_resolver", "host-1"),
        ("index_url", "https://mirror.example.com/simple"),
        ("wheelhouse", "/srv/wheels"),
        ("ca_file", "/etc/ssl/company.pem"),
        ("environment", {"HTTPS_PROXY": "http://proxy.example.com:3128"}),
    ],
)
def test_what_is_said_of_the_environment_holds_for_what_is_installed_into_it(role: str, option: str, said: Any) -> None:
    defaults = read(role, "defaults")
    assert value(f"{role}_{option}", {**defaults, f"neuron_venv_{option}": said}) == said
    given = {**defaults, f"neuron_venv_{option}": said, f"{role}_{option}": "own"}
    assert value(f"{role}_{option}", given) == "own"
