# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of a host that serves, and a host that is launched from it: it serves, and site.yml has nothing to do there.

Standing in: EC2, where an image is what is on the container's disk, and the light stack, whose vLLM computes nothing.
"""

from __future__ import annotations

import re

import pytest

from sandbox import ec2
from sandbox.settings import SandboxError
from tests.bake.account import KEPT, LOG, SERVES, Account, changed

KEYS_OF_ROOT, KEY = "/root/.ssh/authorized_keys", "ssh-ed25519-of-somebody-else"


def test_a_host_of_the_image_has_nothing_left_to_do(account: Account) -> None:
    jammy = ec2.image_name("jammy-22.04")
    account.run("launch", launch_image_name=jammy)
    identity, address = account.host()

    # What no image can be made of.
    with pytest.raises(SandboxError, match="bake_image_host is required, and is not set"):
        account.run("bake_image")
    with pytest.raises(SandboxError, match="bake_image_host is i-none, and the group neuron of the inventory has i-"):
        account.run("bake_image", bake_image_host="i-none")
    with pytest.raises(SandboxError) as refused:
        account.run("bake_image", bake_image_host=identity)
    said = " ".join(str(refused.value).split())
    assert f"{identity} has no whole release, and its server does not answer" in said
    assert "run neuronops.vllm.site first. Nothing was changed." in said

    account.run("site")
    before = account.read(address)
    assert changed(account.run("bake_image", "--check", bake_image_host=identity)) > 0
    assert account.read(address) == before and account.images() == []
    account.remote(address, SERVES)
    no_instance = r"i-0123456789abcdef0 is no running instance that these\s+credentials see in us-east-1"
    with pytest.raises(SandboxError, match=no_instance):
        account.run("bake_image", bake_image_host=identity, ec2_instance_id="i-0123456789abcdef0")
    assert account.read(address) == before and account.images() == []

    # Whoever may enter this host may not enter those that are made of it.
    account.remote(address, ["sudo", "sh", "-c", f"mkdir -p /root/.ssh && echo {KEY} > {KEYS_OF_ROOT}"])
    assert changed(account.run("bake_image", bake_image_host=identity, bake_image_tags={"team": "a"})) > 0
    (made,) = account.images()
    tags = {tag["Key"]: tag["Value"] for tag in made["Tags"]}
    assert made["Name"] == f"neuronops-{tags['neuronops:release']}" and made["Public"] is False
    assert (tags["neuronops:stack"], tags["neuronops:instance"], tags["team"]) == ("light-1", identity, "a")

    account.run("terminate", terminate_confirm="neuron")
    account.run("launch", launch_image_id=made["ImageId"])
    another, address = account.host()
    assert another != identity
    # Its server started with it, and it is a host of its own.
    assert '"object"' in account.remote(address, SERVES)
    assert account.remote(address, ["sudo", "sh", "-c", f"cat {KEYS_OF_ROOT} || true"]) == ""
    after = account.read(address)
    assert not {path for path in KEPT[:2] if after[path] == before[path]}
    assert changed(account.run("site")) == 0

    # The image of that release is there.
    counts = account.run("bake_image", bake_image_host=another)
    assert changed(counts) == 0 and len(account.images()) == 1
    assert re.search(rf"{made['ImageId']} +neuronops-light-1-\S+ is there already", LOG.read_text())
