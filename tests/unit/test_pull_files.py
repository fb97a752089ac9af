# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of docs/pull are what AWS takes and what docs/fleets.md says of them; tests/pull runs them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from moto.core.authorization import enable_iam_authentication

from tests.unit.moto_account import moto_account

CHECKOUT = Path(__file__).resolve().parents[2]
PULL = CHECKOUT / "docs" / "pull"
USER_DATA = (PULL / "user-data.sh").read_text(encoding="utf-8")
POLICY = json.loads((CHECKOUT / "docs" / "iam" / "pull-policy.json").read_text(encoding="utf-8"))
# Bytes, before base64. Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html
MOST = 16384


def test_user_data_is_a_script_that_ec2_takes() -> None:
    assert USER_DATA.startswith("#!/usr/bin/env bash\n") and len(USER_DATA.encode()) < MOST
    done = subprocess.run(["bash", "-n"], input=USER_DATA, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_user_data_names_the_artifact_of_this_version() -> None:
    version = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    assert f"artifact=neuronops-vllm-{version}.tar.gz\n" in USER_DATA


def test_what_a_host_installs_is_pinned_by_hash_and_runs_the_collection() -> None:
    text = (PULL / "requirements.txt").read_text(encoding="utf-8")
    packages = re.findall(r"^([a-z0-9-]+)==([0-9.]+(?:post\d+)?)(?: ;[^\\]*)? ?\\$", text, re.MULTILINE)
    assert {"ansible-core", "boto3"} <= {name for name, _ in packages}
    assert len(re.split(r"^\S", text, flags=re.MULTILINE)) - 1 == len(packages)
    assert all("--hash=sha256:" in block for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:])
    wanted = yaml.safe_load((CHECKOUT / "meta" / "runtime.yml").read_text(encoding="utf-8"))["requires_ansible"]
    oldest = tuple(int(part) for part in re.findall(r"\d+", wanted)[:2])
    (core,) = (version for name, version in packages if name == "ansible-core")
    assert tuple(int(part) for part in core.split(".")[:2]) >= oldest


def test_the_association_is_one_that_the_api_takes() -> None:
    asked = json.loads((PULL / "association.json").read_text(encoding="utf-8"))
    model = boto3.client("ssm", "us-east-1").meta.service_model.operation_model("CreateAssociation")
    assert ParamValidator().validate(asked, model.input_shape).generate_report() == ""
    # One host at a time, and none after one that failed; not at once on a host whose user data is still at work.
    assert (asked["MaxConcurrency"], asked["MaxErrors"], asked["ApplyOnlyAtCronInterval"]) == ("1", "0", True)
    assert asked["ScheduleExpression"].startswith("cron(")  # with rate() the API refuses ApplyOnlyAtCronInterval
    (command,) = asked["Parameters"]["commands"]
    assert f"cat >{command} <<END" in USER_DATA


def test_the_policy_lets_a_host_read_its_place_and_nothing_else() -> None:
    with moto_account():
        iam, s3 = boto3.client("iam", "us-east-1"), boto3.client("s3", "us-east-1")
        iam.create_user(UserName="host")
        iam.put_user_policy(UserName="host", PolicyName="pull", PolicyDocument=json.dumps(POLICY))
        key = iam.create_access_key(UserName="host")["AccessKey"]
        own = boto3.client(
            "s3",
            "us-east-1",
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
        )
        s3.create_bucket(Bucket="my-bucket")
        for name in ("neuronops/pull/variables.yml", "other"):
            s3.put_object(Bucket="my-bucket", Key=name, Body=b"x")
        with enable_iam_authentication():
            assert own.get_object(Bucket="my-bucket", Key="neuronops/pull/variables.yml")["Body"].read() == b"x"
            assert own.list_objects_v2(Bucket="my-bucket")["KeyCount"] == 2
            with pytest.raises(ClientError, match="AccessDenied"):
                own.get_object(Bucket="my-bucket", Key="other")
            with pytest.raises(ClientError, match="AccessDenied"):
                own.put_object(Bucket="my-bucket", Key="neuronops/pull/variables.yml", Body=b"y")
