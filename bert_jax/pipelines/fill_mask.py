"""Fills in [MASK] tokens with the masked language model. The mask token is the tokenizer's own, such as <mask>.

References: Devlin et al., BERT, 2018, section 3.1 (masked LM).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.models import Outputs
from bert_jax.pipelines.batching import Encoded
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline
from bert_jax.text.inputs import valid_text
from bert_jax.text.word_marks import is_wordpiece

MAX_OUTPUT = 1 << 22  # tokens: every answer contains the whole text
FEWEST = 8  # answers computed for a [MASK], and targets; then 64, 512, ...: a few programs serve every call


class FillMask(Pipeline):
    """Fills in the [MASK] tokens of a text.

    `fill(text, top=5)` returns the most probable tokens, best first: `score` (a probability), `token`, `token_str`,
    `sequence`. With several [MASK] tokens each is filled separately and gives a list, and the others stay. In a long
    text a [MASK] is answered from the window in which it has the most context.

    `targets`: restricts the answers to these words; their scores are still the probabilities among all tokens. A word
    of several pieces is replaced by its first piece, with a warning.

    >>> FillMask.load("RUN")("i really [MASK] this film .")  # doctest: +SKIP
    [{'score': 0.41, 'token': 312, 'token_str': 'loved', 'sequence': 'i really loved this film.'}, ...]

    Raises:
        ValueError: a tokenizer without a mask token; a text without a [MASK], or a very long text with very many; a
            target that is not in the vocabulary, or no target.
    """

    models = ("BertForMaskedLM", "BertForPreTraining")

    def __init__(self, bert: LoadedBert, **options: Any) -> None:
        self.mask_token = bert.tokenizer.mask_token
        super().__init__(bert, **options)

    def special_tokens(self) -> tuple[str, ...]:
        return (self.mask_token,)

    def sequences(self, document: Document) -> list[Encoded]:
        found = []
        for window, masks in self.masked_windows(document):
            position = document.position(window, masks[0]) if len(masks) == 1 else None
            found.append(document.encoded(window, position))
        return found

    def masked_windows(self, document: Document) -> list[tuple[Any, np.ndarray]]:
        """Returns the windows that answer a [MASK], each with its [MASK] tokens as indices in the document."""
        (masks,) = np.nonzero(document.ids == self.tokenizer.mask_id)
        if not len(masks):
            raise ValueError(f"the text has no {self.mask_token}: {document.text!r:.60}")
        if len(masks) * len(document.ids) > MAX_OUTPUT:
            raise ValueError(
                f"{len(masks):,} {self.mask_token} tokens are too many for a text of {len(document.ids):,} tokens"
            )
        owners = document.owners[masks]
        return [(document.windows[owner], masks[owners == owner]) for owner in np.unique(owners)]

    def default_options(self) -> dict[str, Any]:
        return {"top": 5, "targets": None}

    def static(self, options: Mapping[str, Any]) -> dict[str, Any]:
        if options["top"] < 1:
            raise ValueError(f"`top` must be at least 1, got {options['top']}")
        targets = options["targets"]
        vocabulary = self.bert.config.vocab_size
        if targets is None:
            return {"top": min(round_up(options["top"]), vocabulary)}
        return {"top": round_up(min(options["top"], len(self.target_ids(targets, warn=False))))}

    def arrays(self, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if options["targets"] is None:
            return {}
        ids = self.target_ids(options["targets"])
        return {"targets": np.pad(ids, (0, round_up(len(ids)) - len(ids)), constant_values=-1)}

    def target_ids(self, targets: str | Sequence[str], *, warn: bool = True) -> np.ndarray:
        """Returns the token ids of words, each once, int32; `warn` of words that are several tokens."""
        words = [targets] if isinstance(targets, str) else list(targets)
        if not words:
            raise ValueError("`targets` must have at least one word")
        found = []
        for word in words:
            text = valid_text(word, "a target")
            ids = self.pieces(text)
            if not ids or ids[0] == self.tokenizer.unk_id:
                raise ValueError(f"the target {word!r:.60} is not in the vocabulary")
            if len(ids) > 1 and warn:
                piece = self.tokenizer.tokens[ids[0]]
                warnings.warn(
                    f"the target {word!r:.60} is not one token; its first piece {piece!r} is used", stacklevel=2
                )
            found.append(ids[0])
        return np.array(list(dict.fromkeys(found)), np.int32)

    def pieces(self, text: str) -> list[int]:
        """Returns the ids of a token of the vocabulary, or of a word as it is in the middle of a text."""
        known = self.tokenizer.backend.token_to_id(text)
        ids = self.tokenizer.encode_batch([self.tokenizer.as_word(text)], add_special_tokens=False)[0].ids
        whole = len(ids) == 1 and not is_wordpiece(self.tokenizer.backend)  # "Ġowl" before "owl"
        return ids if whole or known is None else [known]

    def select(self, outputs: Outputs, batch: Mapping[str, jax.Array], options: Mapping[str, Any]) -> Any:
        """Returns the probabilities of the best tokens, and the tokens, [B, P, top] each; -1 is no token."""
        top = options["top"]
        targets = options.get("targets")
        scores = jax.nn.softmax(outputs.prediction_logits.astype(jnp.float32), axis=-1)
        if targets is None:
            return jax.lax.top_k(scores, top)
        scores, best = jax.lax.top_k(jnp.where(targets < 0, -1.0, scores[:, :, targets]), top)
        return scores, targets[best]

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> Any:
        found = []
        for (window, masks), (scores, tokens) in zip(self.masked_windows(document), results, strict=True):
            for mask in masks:
                at = 0 if len(masks) == 1 else document.position(window, mask)
                count = min(options["top"], int((tokens[at] >= 0).sum()))
                found.append((mask, tokens[at, :count].tolist(), scores[at, :count].tolist()))
        filled = [self.filled(document, *each, alone=len(found) == 1) for each in found]
        return filled[0] if len(filled) == 1 else filled

    def filled(
        self, document: Document, mask: int, tokens: list[int], scores: list[float], *, alone: bool
    ) -> list[dict[str, Any]]:
        """Returns the answers to one [MASK]."""
        ids = np.concatenate([document.opening, document.ids, document.closing])
        answers = []
        for token, score in zip(tokens, scores, strict=True):
            ids[len(document.opening) + mask] = token
            answers.append(
                {
                    "score": score,
                    "token": token,
                    "token_str": self.tokenizer.decode([token], skip_special_tokens=False),
                    "sequence": self.tokenizer.decode(ids, skip_special_tokens=alone),
                }
            )
        return answers


def round_up(number: int) -> int:
    """Returns the first of 8, 64, 512, ... that is not below the number."""
    size = FEWEST
    while size < number:
        size *= FEWEST
    return size
