# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in for the key-value cache: the tokens themselves, each where its keys and values would lie.

Whoever asks for the next token gets the whole sequence out of the memory: a wrong slot or block is a wrong text or an
error, as it is on a device.
"""

from typing import List, Optional, Sequence

from neuronx_distributed_inference.models.config import NeuronConfig


class TokenMemory:
    def __init__(self, config: NeuronConfig) -> None:
        self._config = config
        self._blocks = config.is_block_kv_layout
        size = config.pa_num_blocks * config.pa_block_size if self._blocks else config.batch_size * config.seq_len
        self._tokens: List[Optional[int]] = [None] * size

    def _place(self, position: int, seq_id: int, blocks: Sequence[int]) -> int:
        if not self._blocks:
            return seq_id * self._config.seq_len + position
        size = self._config.pa_block_size
        place = blocks[position // size] * size + position % size
        # Block 0 is the one that vLLM fills tables up with and gives to no sequence.
        if not size <= place < len(self._tokens):
            raise ValueError(f"position {position} is at slot {place}, outside of {len(self._tokens)} slots")
        return place

    def sequence(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        seq_id: int,
        computed: int = 0,
        slots: Sequence[int] = (),
        blocks: Sequence[int] = (),
    ) -> List[int]:
        """Store the tokens of one row and return all of its sequence, from position 0 on.

        With blocks the first `computed` tokens are in the memory already, and `slots` are the places of those after
        them, as vLLM counted them; the table `blocks` must lead to the same.
        """
        last = positions[-1]
        if not 0 <= seq_id < self._config.batch_size:
            raise ValueError(f"sequence id {seq_id} is outside of batch_size={self._config.batch_size}")
        if last >= self._config.seq_len:
            raise ValueError(f"position {last} is outside of seq_len={self._config.seq_len}")
        if positions[0] == 0:
            if len(tokens) > self._config.max_context_length:
                raise ValueError(f"{len(tokens)} tokens exceed max_context_length={self._config.max_context_length}")
            if not self._blocks:  # a new sequence: nothing of the one before may be read
                start = seq_id * self._config.seq_len
                self._tokens[start : start + self._config.seq_len] = [None] * self._config.seq_len
        places = [self._place(position, seq_id, blocks) for position in range(last + 1)]
        new = [(token, places[at]) for token, at in zip(tokens, positions) if not self._blocks or at >= computed]
        if self._blocks and [place for _, place in new] != list(slots[: len(new)]):
            raise ValueError(f"slots {list(slots[: len(new)])} are not those of the block table: {new}")
        for token, place in new:
            self._tokens[place] = token
        found = [self._tokens[place] for place in places]
        line = [token for token in found if token is not None]
        if len(line) < len(found):
            raise ValueError(f"sequence {seq_id}: nothing was stored at position {found.index(None)}")
        if [line[position] for position in positions] != list(tokens):
            raise ValueError(f"sequence {seq_id}: the tokens of its prefix are others than those in the memory")
        return line
