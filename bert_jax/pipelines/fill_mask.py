"""Words for a [MASK]: the masked language model asked directly.

References: Devlin et al., BERT, 2018, section 3.1 (masked LM).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.pipelines.batching import Encoded
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline
from bert_jax.text.tokenizer import valid_text

Targets = str | Sequence[str] | None
WRITTEN = 1 << 22  # tokens: each answer to a [MASK] comes with the text that it makes


class FillMask(Pipeline):
    """Fills the [MASK]s of a text.

    `x(text, top=5)` returns the likeliest tokens, best first: `score` (a probability), `token`, `token_str`,
    `sequence`. Several [MASK]s are filled each for itself and give a list each, with the others left standing. In a
    long text a [MASK] is answered from the window in which it has the most context.

    `targets`: the words to choose among, with the scores that they have among all. A word that is several pieces is
    stood for by the first, with a warning.

    >>> FillMask.load("RUN")("i really [MASK] this film .")  # doctest: +SKIP
    [{'score': 0.41, 'token': 312, 'token_str': 'loved', 'sequence': 'i really loved this film.'}, ...]

    Raises:
        ValueError: a text without a [MASK], or a very long one with very many; a target that the vocabulary has
            nothing for, or no target.
    """

    models = ("BertForMaskedLM", "BertForPreTraining")

    def sequences(self, document: Document) -> list[Encoded]:
        found = []
        for window, masks in self.asked(document):
            place = document.place(window, masks[0]) if len(masks) == 1 else None
            found.append(document.encoded(window, self.tokenizer.sep_id, place))
        return found

    def asked(self, document: Document) -> list[tuple[Any, np.ndarray]]:
        """Returns the windows that answer for a [MASK], and for which, as tokens of the document."""
        (masks,) = np.nonzero(document.ids == self.tokenizer.mask_id)
        if not len(masks):
            raise ValueError(f"wanted a [MASK] in the text: {document.text!r:.60}")
        if len(masks) * len(document.ids) > WRITTEN:
            raise ValueError(f"{len(masks):,} [MASK]s are too many for a text of {len(document.ids):,} tokens")
        owners = document.owners[masks]
        return [(document.windows[owner], masks[owners == owner]) for owner in np.unique(owners)]

    def static(self, *, top: int = 5, targets: Targets = None) -> dict[str, Any]:
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        choices = self.bert.config.vocab_size if targets is None else len(self.target_ids(targets))
        return {"top": min(top, choices)}

    def arrays(self, *, targets: Targets = None, **_options: Any) -> dict[str, np.ndarray]:
        return {} if targets is None else {"targets": self.target_ids(targets)}

    def target_ids(self, targets: str | Sequence[str]) -> np.ndarray:
        """Returns the tokens that words stand for, each once, int32 [K]."""
        words = [targets] if isinstance(targets, str) else list(targets)
        if not words:
            raise ValueError("wanted at least one target")
        found = []
        for word in words:
            text = valid_text(word, "a target")
            known = self.tokenizer.backend.token_to_id(text)
            ids = [known] if known is not None else self.tokenizer.encode_batch([text], add_special_tokens=False)[0].ids
            if not ids or ids[0] == self.tokenizer.unk_id:
                raise ValueError(f"the vocabulary has nothing for the target {word!r:.60}")
            if len(ids) > 1:
                piece = self.tokenizer.tokens[ids[0]]
                warnings.warn(f"the target {word!r:.60} is no single token: {piece!r} stands for it", stacklevel=2)
            found.append(ids[0])
        return np.array(list(dict.fromkeys(found)), np.int32)

    def wanted(self, outputs, batch, *, top: int, targets: jax.Array | None = None):
        """The best tokens and their probabilities, [B, P, top] each."""
        scores = jax.nn.softmax(outputs.prediction_logits.astype(jnp.float32), axis=-1)
        if targets is None:
            return jax.lax.top_k(scores, top)
        scores, best = jax.lax.top_k(scores[:, :, targets], top)
        return scores, targets[best]

    def answer(self, document: Document, results: list[Any], **_options: Any) -> Any:
        found = []
        for (window, masks), (scores, tokens) in zip(self.asked(document), results, strict=True):
            for mask in masks:
                at = 0 if len(masks) == 1 else document.place(window, mask)
                found.append((mask, tokens[at].tolist(), scores[at].tolist()))
        filled = [self.filled(document, *each, alone=len(found) == 1) for each in found]
        return filled[0] if len(filled) == 1 else filled

    def filled(
        self, document: Document, mask: int, tokens: list[int], scores: list[float], *, alone: bool
    ) -> list[dict[str, Any]]:
        """Returns the results of one [MASK]."""
        ids = np.concatenate([document.opening, document.ids, [self.tokenizer.sep_id]])
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
