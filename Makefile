# SPDX-License-Identifier: GPL-3.0-or-later
# `make demo` runs the main job, `make test` proves everything; both set up what they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON3 ?= python3
export NEURONOPS_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/neuronops
export NEURONOPS_SANDBOX_NAME ?= neuronops-sandbox
export NEURONOPS_SANDBOX_STATE := $(NEURONOPS_CACHE)/sandbox/$(NEURONOPS_SANDBOX_NAME)
# One environment for each lock and interpreter, shared by all checkouts and safe to delete.
ENV := $(NEURONOPS_CACHE)/python/$(shell { cat requirements/dev.txt; $(PYTHON3) --version; } | sha256sum | cut -c1-16)
COLLECTION := .build/collections/ansible_collections/neuronops/vllm
export PATH := $(ENV)/bin:$(PATH)
# The same run from any shell; what is left out and kept stands there. -I: not even Python's own variables count.
STATED = python -I sandbox/environment.py
# What of Python's own variables would reach the interpreter that makes the environment.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE

.PHONY: help
help:  ## Show the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.PHONY: env
env: $(ENV)/.complete $(COLLECTION)/galaxy.yml  ## Make the Python environment that the other targets use.

$(ENV)/.complete:
	@requirements/install.sh "$(PYTHON3)" "$(ENV)" requirements/dev.txt

# Ansible finds a collection by its folders' names, so the checkout stands under them through a link.
$(COLLECTION)/galaxy.yml:
	@mkdir -p $(dir $(COLLECTION)) && ln -sfn "$(CURDIR)" $(COLLECTION)

.PHONY: python
python: env  ## Print the path of that environment's interpreter.
	@echo "$(ENV)/bin/python"

.PHONY: lock
lock: env  ## Resolve requirements/*.in again into the pinned *.txt.
	for file in requirements/*.in docs/pull/*.in; do uv pip compile --quiet --upgrade --universal \
		--python-version $$(case $$file in *2.17*|*pull*) echo 3.10;; *2.20*) echo 3.12;; *2.21*) echo 3.13;; *) echo 3.11;; esac) \
		--generate-hashes --no-header --no-annotate --output-file $${file%.in}.txt $$file || exit 1; done

.PHONY: docs
docs: env  ## Write the generated parts of the documentation again.
	@python docs/role_options.py
	@python docs/versions.py
	@python docs/troubleshooting.py

.PHONY: docs-site
docs-site: env  ## Write the documentation as a site, .build/site/index.html.
	@$(STATED) docs/site/build.sh

.PHONY: demo
demo: env  ## The main job on this machine, with no AWS account: launch, install, serve, ask. KEEP=1 leaves it running.
	@$(STATED) python -m sandbox.demo $(if $(KEEP),--keep)

.PHONY: test
test: env  ## What every change must hold; what CI runs.
	@$(STATED) python -m tests.run

.PHONY: test-all
test-all: env  ## Also every stack, built and served, real kernels, hardened hosts, all versions of ansible-core.
	@$(STATED) python -m tests.run --all

.PHONY: test-fast
test-fast: env  ## Lint, types and unit tests: no Docker.
	@$(STATED) python -m tests.run --fast

.PHONY: test-mutations
test-mutations: env  ## Break what the roles do, one thing after the other, and see a test fail each time.
	@$(STATED) python -m tests.mutate $(if $(PART),--part $(PART))

.PHONY: test-vm
test-vm: env  ## The driver's role on a real kernel, in a virtual machine.
	@$(STATED) python -m tests.run --part vm

.PHONY: test-part
test-part: env  ## One part of the proof: make test-part PART=unit.
	@$(STATED) python -m tests.run --part $(PART)

.PHONY: molecule
molecule: env  ## One scenario step by step: make molecule SCENARIO=vllm STEP=converge (after `python -m sandbox up`).
	@$(STATED) molecule $(or $(STEP),test) --scenario-name $(SCENARIO)
