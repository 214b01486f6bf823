"""Plans one pass over the corpus as a table of sequences, for either objective.

Documents are planned in blocks. The random numbers of a block depend only on the seed, the pass and the index of the
block, so a pass can be planned without those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bert_jax.data.pretraining.pair_planning import plan_pairs
from bert_jax.data.pretraining.run_planning import plan_runs
from bert_jax.data.pretraining.sequences import SPECIAL_TOKENS, Objective, SpecialTokens, check_lengths

if TYPE_CHECKING:  # so that rows can be described without `datasets`
    from bert_jax.data.pretraining.token_store import TokenStore

BLOCK_DOCUMENTS = 65_536  # planned together


def plan_sequences(
    store: TokenStore,
    *,
    objective: Objective,
    max_length: int,
    short_probability: float = 0.1,
    seed: int,
    pass_number: int,
    special: SpecialTokens = SPECIAL_TOKENS,
) -> Iterator[np.ndarray]:
    """Plans one pass over the corpus: sentence pairs (`plan_pairs`) or runs of sentences (`plan_runs`).

    Args:
        max_length: maximum number of tokens of a sequence with its special tokens.
        short_probability: probability that a document's sequences get a random, shorter target length in this pass, so
            that the model also sees short inputs.
        special: the numbers of special tokens of the sequences; default: BERT's.

    Returns:
        Blocks of sequences, SEQUENCE [sequences of the block], in the order of the corpus.

    Raises:
        ValueError: `max_length` is too small for a sequence, or there are fewer than two documents for pairs.
    """
    check_lengths(objective, max_length, short_probability, special)
    if objective == "mlm-nsp" and store.num_documents < 2:
        raise ValueError(
            f"next-sentence prediction needs at least two documents, got {store.num_documents}; "
            "`objective=mlm` needs one"
        )
    plan = plan_pairs if objective == "mlm-nsp" else plan_runs
    room = max_length - special[objective]

    def block(index: int, first: int) -> np.ndarray:
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, pass_number, index))))
        documents = np.arange(first, min(first + BLOCK_DOCUMENTS, store.num_documents))
        return plan(store, documents, room, short_probability, random)

    return (block(index, first) for index, first in enumerate(range(0, store.num_documents, BLOCK_DOCUMENTS)))
