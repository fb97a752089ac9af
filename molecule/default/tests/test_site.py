# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml leaves on a bare host: a released environment, a vLLM built for Neuron, and served text."""

import json

import pytest

from plugins.plugin_utils import stacks

STACK = stacks.resolve()
LINK = "/opt/aws_neuron_venv_pytorch"
PROMPT = "the water"


@pytest.fixture(scope="module")
def release(host):
    """The path of the release that is active."""
    return host.check_output(f"readlink {LINK}")


def test_the_environment_is_a_release_behind_a_link(host, release):
    assert release.startswith(f"/opt/neuronops/releases/{STACK['name']}-")
    for role in ("neuron_venv", STACK["packages_role"], "vllm"):
        assert json.loads(host.file(f"{release}/neuronops/{role}.json").content_string)["role"] == role


def test_vllm_is_the_one_built_for_neuron(host):
    version = host.check_output(
        f"{LINK}/bin/python -c 'from importlib.metadata import version; print(version(\"vllm\"))'"
    )
    assert version == f"{STACK['vllm']['version']}+{STACK['vllm']['suffix']}"


def test_neuron_ls_sees_the_device(host):
    devices = json.loads(host.check_output("/opt/aws/neuron/bin/neuron-ls -j"))
    assert [device["nc_count"] for device in devices] == [2]


def test_the_served_text_is_what_greedy_decoding_gives(host):
    model = json.loads(host.check_output("curl -sf http://127.0.0.1:8000/v1/models"))["data"][0]
    body = json.dumps({"model": model["id"], "prompt": PROMPT, "max_tokens": 12, "temperature": 0})
    served = json.loads(
        host.check_output(
            f"curl -sf -H 'Content-Type: application/json' -d '{body}' http://127.0.0.1:8000/v1/completions"
        )
    )["choices"][0]["text"]
    greedy = host.check_output(f"""{LINK}/bin/python - 2>/dev/null <<'PY'
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("{model["root"]}")
model = AutoModelForCausalLM.from_pretrained("{model["root"]}")
tokens = tokenizer("{PROMPT}", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(tokens, max_new_tokens=12, do_sample=False)[0][tokens.shape[1]:]))
PY""")
    assert served.strip() == greedy.strip()
    assert served.strip()
