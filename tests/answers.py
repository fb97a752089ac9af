# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules answer on a host where all is well, with a value for everything that they may say."""

from __future__ import annotations

from typing import Any

DIGEST = "0123456789abcdef" * 4
VENV = "/opt/aws_neuron_venv_pytorch"
KEY: dict[str, Any] = {
    "fingerprint": "00FA2C1079260870A76D2C285749CAD8646D9185",
    "user_ids": ["Amazon AWS Neuron <neuron-maintainers@amazon.com>"],
    "expires": "2027-01-31",
    "expired": False,
    "expires_soon": False,
    "revoked": False,
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "neuron_info": {
        "environments": [VENV, "/opt/neuronops/releases/*"],
        "services": ["vllm.service"],
        "files": ["/etc/profile.d/aws-neuron.sh", "/etc/default/aws-neuron"],
        "links": [VENV],
        "repository": {"manager": "apt"},
    },
}
RELEASE: dict[str, Any] = {
    "schema": 1,
    "id": "vllm-0.9.2-0a1b2c3d",
    "stack": "vllm-0.9.2",
    "completed_at": "2026-11-25T15:30:00Z",
    "layers": ["neuron_venv", "transformers_neuronx", "vllm"],
}
ENVIRONMENT: dict[str, Any] = {
    "path": VENV,
    "real_path": "/opt/neuronops/releases/one",
    "exists": True,
    "python": {"executable": "/usr/bin/python3.10", "version": "3.10.12", "works": True, "problem": None},
    "packages": {"torch": "2.5.1", "vllm": "0.9.2+neuron218"},
    "damaged": {"~orch-2.5.1.dist-info": "left behind by an interrupted installation"},
    "manifests": {
        "vllm": {
            "role": "vllm",
            "inputs": DIGEST,
            "packages": {"vllm": "0.9.2+neuron218"},
            "files": {f"{VENV}/neuronops/wheels/vllm-0.9.2+neuron218-py3-none-any.whl": DIGEST},
            "imported": ["vllm.worker.neuron_worker"],
        }
    },
    "changed_files": [f"{VENV}/pip.conf"],
    "release": RELEASE,
    "ignored": ["a.json counts as none, and what it is about is done again"],
}
ACTIVATION: dict[str, Any] = {
    "number": 7,
    "service": "vllm",
    "link": VENV,
    "release": "/opt/neuronops/releases/one",
    "configuration": DIGEST,
    "stack": "vllm-0.9.2-3f9017f7",
    "state": "proven",
    "at": "2026-01-31T12:00:00Z",
    "ended_at": "2026-01-31T13:00:00Z",
    "reason": "it ended before it was healthy",
    "proof": {"at": "2026-01-31T12:01:00Z", "seconds": 60, "pid": 77, "tokens": 1},
    "link_before": "/opt/neuronops/releases/two",
    "back_from": 6,
}
GOOD: dict[str, dict[str, Any]] = {
    "neuron_info": {
        "changed": False,
        "root": True,
        "kernel": {
            "release": "6.8.0-1021-aws",
            "headers": True,
            "newest": "6.8.0-1024-aws",
            "newest_headers": False,
            "next_unknown": "GRUB_DEFAULT is '1>2', which names none of the installed kernels",
            "compiler": "gcc-12",
        },
        "hardware": {
            "present": True,
            "devices": [{"address": "0000:00:1f.0", "family": "inf2", "device_id": "7264"}],
        },
        "driver": {
            "installed": "2.21.37.0",
            "built_for_kernel": True,
            "built_for_newest": False,
            "loaded": "2.20.28.0",
            "references": 1,
            "in_use_by": [{"pid": 321, "command": "python3 (worker)"}],
            "not_at_boot": ["/etc/modprobe.d/company.conf keeps the module neuron away"],
        },
        "neuron_ls": {
            "path": "/opt/aws/neuron/bin/neuron-ls",
            "rc": 0,
            "error": "it complained: no {device}",
            "cores": 2,
            "devices": [
                {
                    "index": 0,
                    "address": "0000:00:1e.0",
                    "cores": 2,
                    "core_ids": [0, 1],
                    "memory_bytes": 34359738368,
                    "connected_to": [1],
                    "instance_type": "inf2.xlarge",
                    "instance_id": "i-0123456789abcdef0",
                    "processes": [{"pid": 42, "command": "python3", "runtime_version": "2.25.57"}],
                }
            ],
        },
        "packages": {"aws-neuronx-dkms": {"version": "2.21.37.0", "held": False, "state": "installed"}},
        "dpkg_interrupted": False,
        "free_bytes": {},
        "environments": [
            ENVIRONMENT,
            {**ENVIRONMENT, "path": "/opt/neuronops/releases/one"},
            {**ENVIRONMENT, "path": "/opt/neuronops/releases/two", "real_path": "/opt/neuronops/releases/two"},
        ],
        "services": [
            {
                "name": "vllm.service",
                "load_state": "loaded",
                "active_state": "active",
                "sub_state": "auto-restart",
                "enabled": True,
                "main_pid": 77,
                "executable_real_path": "/opt/neuronops/releases/one/bin/python",
                "configuration": DIGEST,
                "needs_reload": True,
                "ours": False,
                "drop_ins": {"/etc/systemd/system/vllm.service.d/mine.conf": ["ExecStart"]},
            }
        ],
        "activations": [ACTIVATION],
        "links": {VENV: {"kind": "link", "target": "/opt/neuronops/releases/one"}},
        "files": {"/etc/profile.d/aws-neuron.sh": DIGEST, "/etc/default/aws-neuron": None},
        "repository": {"current": False, "reasons": ["the key expires on 2027-01-31"], "key": KEY},
        "record": {"packages": ["aws-neuronx-dkms", "linux-headers-6.8.0-1021-aws"], "stack": "vllm-0.9.2"},
    },
    "neuron_repository": {
        "changed": True,
        "reasons": ["/etc/apt/keyrings/aws-neuron.gpg: there is no key"],
        "key": KEY,
        "backups": ["/var/lib/neuronops/replaced/etc__apt__sources.list.1"],
        "paths": ["/etc/apt/keyrings/aws-neuron.gpg"],
        "diff": [{"before": "a\n", "after": "b\n", "before_header": "/a", "after_header": "/a"}],
    },
    "packages_ready": {"changed": True, "usable": True, "reasons": ["python3-apt is not installed"]},
    "release_prune": {"changed": True, "removed": ["vllm-0.7.3-0123456789"], "kept": ["vllm-0.9.2-0123456789"]},
    "python_venv": {"changed": True, "reason": "there is none", "diff": {"before": "there is none\n", "after": ""}},
    "managed_python": {
        "changed": True,
        "release": "3.12.16",
        "reason": "there is no Python 3.12",
        "diff": {"before": "there is no Python 3.12\n", "after": ""},
    },
    "pip_configuration": {"changed": False, "files": {f"{VENV}/pip.conf": DIGEST}},
    "host_lock": {
        "changed": False,
        "held_by": {"who": "ann@laptop", "controller": DIGEST, "pid": 7, "began": "4711", "seconds": 60},
    },
    "jupyter_kernel": {"changed": True, "files": {"/home/a/.local/share/jupyter/kernels/x/kernel.json": DIGEST}},
    "vllm_activation": {
        "changed": True,
        "number": 7,
        "release": "/opt/neuronops/releases/one",
        "configuration": DIGEST,
        "begins": True,
        "did": ["activation 7 is recorded as pending"],
        "problem": "systemctl restart vllm.service failed: no {space}",
        "since": 1764000000,
        "diff": [{"before": "", "after": "b\n", "before_header": "/a", "after_header": "/a"}],
    },
    "vllm_answer": {
        "changed": False,
        "state": "hung",
        "problem": "it did not answer /health in time",
        "pid": 77,
        "configuration": DIGEST,
        "seconds": 600,
        "status": 200,
        "tokens": 1,
        "address": "127.0.0.1",
        "port": 8000,
        "listener": {"pid": 78, "command": "python3 (worker)", "ours": False},
        "busy": "Compiling module 3 of 12",
        "restarts": 2,
    },
    "python_packages": {"changed": True, "packages": {"torch": "2.5.1"}, "foreign": ["pip"]},
    "release_record": {
        "changed": True,
        "written": ["vllm.json", "release.json"],
        "release": RELEASE,
        "diff": [{"before": "", "after": "{}\n", "before_header": "/a", "after_header": "/a"}],
    },
}
