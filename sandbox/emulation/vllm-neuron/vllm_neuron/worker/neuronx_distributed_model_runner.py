# SPDX-License-Identifier: GPL-3.0-or-later
"""One step of vLLM on the device: each new prompt by itself, then one token for all others together.

A request has a line of the device's cache from its prompt to its end; vLLM's blocks mean nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from neuronx_distributed_inference.modules.generation.sampling import prepare_sampling_params
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput
from vllm.v1.sample.sampler import Sampler

from vllm_neuron.worker import sampling
from vllm_neuron.worker.neuronx_distributed_model_loader import load_model


@dataclass
class _Request:
    name: str
    params: Any
    prompt: list[int]
    line: int
    output: list[int] = field(default_factory=list)


class NeuronxDistributedModelRunner:
    def __init__(self, vllm_config: Any) -> None:
        self.vllm_config = vllm_config
        self.model: Any = None
        self.vocabulary = vllm_config.model_config.get_vocab_size()
        self.sampler = Sampler()
        self._requests: dict[str, _Request] = {}  # in the order in which they came
        self._free = list(range(vllm_config.scheduler_config.max_num_seqs))
        self._step: tuple[list[_Request], Any] | None = None  # what waits for sample_tokens

    def load_model(self) -> None:
        self.model = load_model(self.vllm_config)

    @property
    def _on_device(self) -> bool:
        return self.model.neuron_config.on_device_sampling_config is not None

    def execute_model(self, scheduler_output: Any) -> ModelRunnerOutput | None:
        for name in scheduler_output.finished_req_ids:
            ended = self._requests.pop(name, None)
            if ended:
                self._free.append(ended.line)
        scheduled = scheduler_output.num_scheduled_tokens
        if not scheduled:
            return EMPTY_MODEL_RUNNER_OUTPUT
        new = [self._begin(data, scheduled[data.req_id]) for data in scheduler_output.scheduled_new_reqs]
        going_on = [self._requests[name] for name in scheduler_output.scheduled_cached_reqs.req_ids]
        for request in going_on:
            if scheduled[request.name] != 1:
                raise RuntimeError(f"{request.name} was to go on by {scheduled[request.name]} tokens, not by one")
        going_on.sort(key=lambda request: request.line)
        answers = [self._prefill(request) for request in new]
        if going_on:
            answers.append(self._decode(going_on))
        self._step = [*new, *going_on], torch.cat(answers)
        # vLLM 0.11 brings the grammar at once, later ones ask again with it.
        return self.sample_tokens(scheduler_output) if hasattr(scheduler_output, "grammar_bitmask") else None

    def _begin(self, data: Any, scheduled: int) -> _Request:
        if scheduled != len(data.prompt_token_ids):
            raise RuntimeError(f"{scheduled} of {len(data.prompt_token_ids)} tokens of a prompt: it is computed whole")
        request = _Request(data.req_id, data.sampling_params, list(data.prompt_token_ids), self._free.pop(0))
        self._requests[request.name] = request
        return request

    def _prefill(self, request: _Request) -> torch.Tensor:
        return self._compute([request], [request.prompt], [list(range(len(request.prompt)))])

    def _decode(self, requests: list[_Request]) -> torch.Tensor:
        at = [[len(request.prompt) + len(request.output) - 1] for request in requests]
        return self._compute(requests, [[request.output[-1]] for request in requests], at)

    def _compute(
        self, requests: Sequence[_Request], tokens: list[list[int]], positions: list[list[int]]
    ) -> torch.Tensor:
        """Logits [batch, vocabulary], or the tokens themselves [batch] where the device samples."""
        answer = self.model(
            torch.tensor(tokens),
            position_ids=torch.tensor(positions),
            seq_ids=torch.tensor([request.line for request in requests]),
            sampling_params=self._device_parameters(len(requests)),
        )
        return answer.hidden_states if self._on_device else answer.logits[:, -1]

    def _device_parameters(self, rows: int) -> Any:
        """One row of parameters for each row of the batch.

        They are those of all requests, by age: a habit of the plugin that this stands in for. The rows of the batch
        are in another order, so who is served together with others gets parameters of theirs.
        """
        params = [request.params for request in self._requests.values()]
        greedy = [each.temperature < 1e-5 for each in params]
        table = prepare_sampling_params(
            len(params),
            top_k=[1 if best else each.top_k for each, best in zip(params, greedy)],
            top_p=[1.0 if best else each.top_p for each, best in zip(params, greedy)],
            temperature=[1.0 if best else each.temperature for each, best in zip(params, greedy)],
        )
        return table[:rows]

    def sample_tokens(self, grammar: Any) -> ModelRunnerOutput:
        """grammar: which requests may only go on in certain ways, and which those are; None where there is none."""
        if self._step is None:
            raise RuntimeError("there is no step to sample the tokens of")
        requests, answer = self._step
        self._step = None
        logprobs = None
        if self._on_device:
            tokens = answer.tolist()
        else:
            rows = {request.name: row for row, request in enumerate(requests)}
            if grammar is not None and grammar.grammar_bitmask is not None:
                bound = list(grammar.structured_output_request_ids)
                sampling.forbid(answer, [rows[name] for name in bound], grammar.grammar_bitmask)
            sampled = self.sampler(answer, sampling.metadata(self.vllm_config, requests, self.vocabulary))
            tokens = sampled.sampled_token_ids[:, 0].tolist()
            logprobs = sampled.logprobs_tensors.tolists() if sampled.logprobs_tensors is not None else None
        for request, token in zip(requests, tokens):
            request.output.append(token)
        return ModelRunnerOutput(
            req_ids=[request.name for request in requests],
            req_id_to_index={request.name: row for row, request in enumerate(requests)},
            sampled_token_ids=[[token] for token in tokens],
            logprobs=logprobs,
            prompt_logprobs_dict={},
            pooler_output=[],
        )
