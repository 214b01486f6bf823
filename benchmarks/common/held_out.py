"""The masked LM loss of any model on a held-out corpus, always on the same rows with the same masks.

Losses per token cannot be compared between vocabularies, so the tokens per word are counted too. Pieces of a word are
easier to predict when its other pieces are visible; in a second evaluation, whole words are masked.
"""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from bert_jax.data.pretraining.loader import BatchSettings, evaluation_batches
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.data.readers.corpus import read_corpus
from bert_jax.interop.loading import load
from bert_jax.training.objectives import masked_lm
from bert_jax.training.runs.metrics import evaluate
from bert_jax.training.steps import evaluation_step
from common.inputs import CACHE

BATCH_SIZE = 32


class HeldOutLoss(NamedTuple):
    """Nats per masked token, with masked tokens and with masked words; and the tokens per word of the corpus."""

    loss: float
    whole_words: float
    tokens_per_word: float


def held_out_loss(model: Path, corpus: Path, *, max_length: int, masked_share: float) -> HeldOutLoss:
    """Evaluates a model on runs of sentences of a corpus, in packed rows."""
    bert = load(model, head="BertForMaskedLM")
    store = tokenize_corpus(read_corpus(str(corpus), cache_dir=CACHE), bert.tokenizer, cache_dir=CACHE)
    step = jax.jit(partial(evaluation_step, objective=masked_lm(bert.model)))
    losses = []
    for whole_words in (False, True):
        rows = BatchSettings(
            max_length, masked_share=masked_share, whole_word_masking=whole_words, objective="mlm", seed=0
        )
        with evaluation_batches(store, bert.tokenizer, rows, batch_size=BATCH_SIZE) as batches:
            losses.append(evaluate(step, bert.params, batches)["eval_masked_lm_loss"])
    return HeldOutLoss(*losses, store.num_tokens / count_words(store, bert.tokenizer.continuation))


def count_words(store: TokenStore, continuation: np.ndarray) -> int:
    """Returns the number of words of a corpus: tokens that do not continue a word.

    Args:
        continuation: bool [V], see `Tokenizer`.
    """
    ends = store.sentence_offsets[store.document_offsets]  # tokens before each document
    spans = (store.span(int(start), int(end - start)) for start, end in pairwise(ends))
    return sum(int((~continuation[span]).sum()) for span in spans)
