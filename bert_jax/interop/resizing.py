"""Models made larger than they were loaded: more tokens, more positions.

A new token begins as the mean of the pieces that it was spelled with before, so that nothing is far from what the model
knows; a longer table of positions is the old one drawn out. Both keep what was learned and are meant to be trained on.

References: Gee et al., Fast Vocabulary Transfer for Language Model Compression, 2022 (the mean of the pieces). Hewitt,
Initializing New Word Embeddings for Pretrained Language Models, 2021 (the mean of all, where there are no pieces).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import tokenizers

from bert_jax.config import BertConfig
from bert_jax.interop.loading import LoadedBert
from bert_jax.text.tokenizer import Tokenizer


def add_tokens(bert: LoadedBert, tokens: Sequence[str], *, special: bool = False, multiple_of: int = 1) -> LoadedBert:
    """Returns the model with tokens that its vocabulary did not have; those that it has keep their place.

    Args:
        tokens: whole words; or, when `special`, marks that are found anywhere and left out of decoded text.
        multiple_of: rounds up the rows of the embedding.
    """
    old = bert.tokenizer
    backend = tokenizers.Tokenizer.from_str(old.backend.to_str())
    if special:
        backend.add_special_tokens([*tokens])
    else:
        new = [token for token in dict.fromkeys(tokens) if backend.token_to_id(token) is None]
        backend.add_tokens([tokenizers.AddedToken(token, single_word=True) for token in new])
    tokenizer = Tokenizer(backend)
    added = tokenizer.tokens[old.vocab_size :]
    spelled = [encoding.ids for encoding in old.encode_batch(added, add_special_tokens=False)] if added else []
    spelled = [[piece for piece in ids if piece != old.unk_id] for ids in spelled]
    size = max(bert.config.vocab_size, -(-tokenizer.vocab_size // multiple_of) * multiple_of)
    config, params = resize_vocabulary(bert.config, bert.params, size, after=old.vocab_size, spelled=spelled)
    return replace(bert, model=bert.model.clone(config=config), params=params, vocabulary=tokenizer)


def resize_vocabulary(
    config: BertConfig, params: Any, size: int, *, after: int | None = None, spelled: Sequence[Sequence[int]] = ()
) -> tuple[BertConfig, Any]:
    """Returns config and parameters with `size` rows in the embedding, cut off or filled up at the end.

    Args:
        after: the rows to keep; default: all that there is room for.
        spelled: the ids whose mean the first new rows are; further ones are the mean of all that are kept.
    """
    kept = min(size, config.vocab_size if after is None else after)

    def resized(table: Any) -> Any:
        table = np.asarray(table)
        rows = np.empty((size, *table.shape[1:]), table.dtype)
        rows[:kept] = table[:kept]
        rows[kept:] = table[:kept].mean(0, dtype=np.float32)
        for row, ids in enumerate(spelled, start=kept):
            if len(ids):
                rows[row] = table[np.asarray(ids)].mean(0, dtype=np.float32)
        return jnp.asarray(rows)

    word = {"embedding": resized(params["embeddings"]["word"]["embedding"])}
    params = {**params, "embeddings": {**params["embeddings"], "word": word}}
    if "masked_lm" in params:
        params["masked_lm"] = {**params["masked_lm"], "bias": resized(params["masked_lm"]["bias"])}
    return replace(config, vocab_size=size), params


def extend_positions(bert: LoadedBert, length: int) -> LoadedBert:
    """Returns the model for rows of up to `length` tokens.

    The table of positions is interpolated: its first and its last row stay the first and the last, and the others lie
    evenly between. Sinusoidal positions have no table and need none.

    Raises:
        ValueError: the model takes longer rows already.
    """
    config, embeddings = bert.config, bert.params["embeddings"]
    if length < config.max_position_embeddings:
        raise ValueError(f"length {length} is less than the {config.max_position_embeddings} positions there are")
    if "position" in embeddings:
        table = np.asarray(embeddings["position"]["embedding"])
        places = np.linspace(0.0, len(table) - 1.0, length)
        below = np.minimum(places.astype(int), max(0, len(table) - 2))
        share = (places - below)[:, None].astype(np.float32)
        above = np.minimum(below + 1, len(table) - 1)
        rows = table[below] * (1 - share) + table[above] * share
        embeddings = {**embeddings, "position": {"embedding": jnp.asarray(rows.astype(table.dtype))}}
    model = bert.model.clone(config=replace(config, max_position_embeddings=length))
    return replace(bert, model=model, params={**bert.params, "embeddings": embeddings})
