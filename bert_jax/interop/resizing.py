"""Larger models from loaded ones: more tokens, more positions. Both should be trained further.

A new token starts as the mean of the pieces that it was split into before. A longer position table is the old one,
interpolated.

References: Gee et al., Fast Vocabulary Transfer for Language Model Compression, 2022 (mean of the pieces). Hewitt,
Initializing New Word Embeddings for Pretrained Language Models, 2021 (mean of all embeddings, if there are no pieces).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import tokenizers

from bert_jax.config import BertConfig
from bert_jax.interop.loading import LoadedBert
from bert_jax.interop.run_facts import changed
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import split_words, with_tokens
from bert_jax.text.word_marks import is_wordpiece


def add_tokens(bert: LoadedBert, tokens: Sequence[str], *, special: bool = False, multiple_of: int = 1) -> LoadedBert:
    """Returns the model with new tokens at the end of its vocabulary; tokens that it has already are skipped.

    With "quokka" added, its row is the mean of the rows of "quo", "##kk" and "##a", if those were its pieces. Words are
    added as the tokenizer normalizes them ("Quokka" as "quokka", if it lower-cases) and become part of the WordPiece
    vocabulary: longer words that begin with one are split after it, "quokkas" into "quokka ##s". See `with_tokens`. In
    other vocabularies they become added tokens, as they are written.

    Args:
        tokens: words; or, with `special`, markers that are found anywhere in a text and skipped when decoding.
        multiple_of: rounds up the number of rows of the embedding; multiples of 64 or 128 run faster on accelerators.
    """
    old = bert.tokenizer
    if special:
        backend = tokenizers.Tokenizer.from_str(old.backend.to_str())
        backend.add_special_tokens([*tokens])
    else:
        known = {*old.tokens}
        normalized = [_normalized(old, token) for token in tokens if token not in known]
        backend = with_tokens(old.backend, [token for token in dict.fromkeys(normalized) if token not in known])
    tokenizer = old.with_settings(backend)
    added = tokenizer.tokens[old.vocab_size :]
    encodings = old.encode_batch(added, add_special_tokens=False) if added else []
    pieces = [[piece for piece in encoding.ids if piece != old.unk_id] for encoding in encodings]
    # The embedding may have more rows than the vocabulary has tokens: new tokens take those rows first.
    size = max(bert.config.vocab_size, -(-tokenizer.vocab_size // multiple_of) * multiple_of)
    config, params = resize_vocabulary(bert.config, bert.params, size, keep=old.vocab_size, pieces=pieces)
    model = bert.model.clone(config=config)
    return replace(bert, model=model, params=params, vocabulary=tokenizer, origin=changed(bert.origin))


def _normalized(tokenizer: Tokenizer, token: str) -> str:
    """Returns a word as WordPiece normalizes it; any other token, or without WordPiece, as it is."""
    if not is_wordpiece(tokenizer.backend):
        return token
    words = split_words(tokenizer.backend, token)
    return words[0] if len(words) == 1 else token


def resize_vocabulary(
    config: BertConfig, params: Any, size: int, *, keep: int | None = None, pieces: Sequence[Sequence[int]] = ()
) -> tuple[BertConfig, Any]:
    """Returns config and parameters with `size` rows in the word embedding, truncated or extended at the end.

    Args:
        keep: number of rows to keep; default: as many as fit.
        pieces: for each new row the ids whose mean it becomes; rows without ids become the mean of all rows kept.
    """
    keep = min(size, config.vocab_size if keep is None else keep)

    def resized(table: Any) -> Any:
        table = np.asarray(table)  # [V, D], or the decoder's bias [V]
        rows = np.empty((size, *table.shape[1:]), table.dtype)
        rows[:keep] = table[:keep]
        rows[keep:] = table[:keep].mean(0, dtype=np.float32)
        for row, ids in enumerate(pieces, start=keep):
            if len(ids):
                rows[row] = table[np.asarray(ids)].mean(0, dtype=np.float32)
        return jnp.asarray(rows)

    word = {"embedding": resized(params["embeddings"]["word"]["embedding"])}
    params = {**params, "embeddings": {**params["embeddings"], "word": word}}
    if "masked_lm" in params:
        params["masked_lm"] = {**params["masked_lm"], "bias": resized(params["masked_lm"]["bias"])}
    return replace(config, vocab_size=size), params


def extend_positions(bert: LoadedBert, length: int) -> LoadedBert:
    """Returns the model for rows of up to `length` tokens, with its position table interpolated linearly.

    The first and the last row stay first and last: from 3 to 5 positions, the rows are at 0, 0.5, 1, 1.5 and 2. Rows
    that no position uses, before RoBERTa's first, stay as they are.
    Sinusoidal positions have no table.

    Raises:
        ValueError: `length` is less than the number of positions.
    """
    config = bert.config
    embeddings = bert.params["embeddings"]
    unused = config.position_offset
    if length < config.max_length:
        limit = "max_position_embeddings" if not unused else "the model's number of positions,"
        raise ValueError(f"`length` must be at least {limit} {config.max_length}, got {length}")
    if "position" in embeddings:
        whole = np.asarray(embeddings["position"]["embedding"])  # [unused + positions, E]
        table = whole[unused:]
        places = np.linspace(0.0, len(table) - 1.0, length)
        lower = np.minimum(places.astype(int), max(0, len(table) - 2))
        upper = np.minimum(lower + 1, len(table) - 1)
        weight = (places - lower)[:, None].astype(np.float32)
        rows = table[lower] * (1 - weight) + table[upper] * weight
        rows = np.concatenate([whole[:unused], rows.astype(table.dtype)])
        embeddings = {**embeddings, "position": {"embedding": jnp.asarray(rows)}}
    model = bert.model.clone(config=replace(config, max_position_embeddings=length + unused))
    return replace(bert, model=model, params={**bert.params, "embeddings": embeddings}, origin=changed(bert.origin))
