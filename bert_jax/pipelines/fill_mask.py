"""Words for a [MASK]: the masked language model asked directly.

References: Devlin et al., BERT, 2018, section 3.1 (masked LM).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.pipelines.batching import Row
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline


class FillMask(Pipeline):
    """Fills the [MASK]s of a text.

    `x(text, top=5)` returns the likeliest tokens, best first: `score` (a probability), `token`, `token_str`,
    `sequence`. Several [MASK]s are filled each for itself and give a list each, with the others left standing. In a
    long text a [MASK] is answered from the window in which it has the most context.

    >>> FillMask.load("RUN")("i really [MASK] this film .")  # doctest: +SKIP
    [{'score': 0.41, 'token': 312, 'token_str': 'loved', 'sequence': 'i really loved this film.'}, ...]

    Raises:
        ValueError: a text without a [MASK].
    """

    models = ("BertForMaskedLM", "BertForPreTraining")

    def rows(self, document: Document) -> list[Row]:
        return [document.row(window, self.tokenizer.sep_id, places) for window, places in self.asked(document)]

    def asked(self, document: Document) -> list[tuple[Any, np.ndarray]]:
        """Returns the windows that answer for a [MASK], and for which, as tokens of the document."""
        (masks,) = np.nonzero(document.ids == self.tokenizer.mask_id)
        if not len(masks):
            raise ValueError(f"wanted a [MASK] in the text: {document.text!r:.60}")
        owners = document.owners[masks]
        return [(document.windows[owner], masks[owners == owner]) for owner in np.unique(owners)]

    def static(self, *, top: int = 5) -> dict[str, Any]:
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        return {"top": min(top, self.bert.config.vocab_size)}

    def wanted(self, outputs, mask, *, top: int):
        """The best tokens and their probabilities, [B, P, top] each."""
        scores = jax.nn.softmax(outputs.prediction_logits.astype(jnp.float32), axis=-1)
        return jax.lax.top_k(scores, top)

    def answer(self, document: Document, results: list[Any], **_options: Any) -> Any:
        found = []
        for (_, masks), row, (scores, tokens) in zip(self.asked(document), self.rows(document), results, strict=True):
            for number, (mask, place) in enumerate(zip(masks, row.places, strict=True)):
                at = number if len(masks) == 1 else place  # the head answered there alone, or for every token
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
