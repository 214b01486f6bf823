"""What a tokenized corpus holds, in numbers that show whether BERT can learn from it, before it trains."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bert_jax.data.pretraining.loader import BatchSettings
from bert_jax.data.pretraining.long_sentences import count_long_sentences
from bert_jax.data.pretraining.sequence_planning import BLOCK_DOCUMENTS, plan_sequences
from bert_jax.data.pretraining.sequences import SPECIAL_TOKENS, SpecialTokens
from bert_jax.data.pretraining.token_store import TokenStore
from bert_jax.messages import counted
from bert_jax.text.vocabulary import MANY_UNKNOWN

MOST_RANDOM = 0.9  # fraction of random second sentences; half of them in long documents, more in short ones


@dataclass(frozen=True)
class CorpusReport:
    """The numbers of one side, training or held out.

    Attributes:
        unknown_tokens: number of [UNK] among the tokens.
        one_sentence_documents: number of documents whose second sentences are always random, if there are pairs.
        split_sentences: number of sentences that were longer than a row.
        random_pairs: fraction of the pairs of the first pass whose second sentence is random; None without pairs.
        shown_tokens: fraction of the tokens that the first pass shows in their own place: all of them without pairs.
            Pairs that are longer than a row are cut, at random places. Both fractions are those of the first documents
            of a large corpus.
    """

    documents: int
    sentences: int
    tokens: int
    unknown_tokens: int
    one_sentence_documents: int
    split_sentences: int
    random_pairs: float | None
    shown_tokens: float

    @classmethod
    def of(cls, store: TokenStore, settings: BatchSettings, special: SpecialTokens = SPECIAL_TOKENS) -> "CorpusReport":
        """Returns the report of one side.

        Args:
            special: the numbers of special tokens of the sequences; default: BERT's.
        """
        sequences = next(
            plan_sequences(
                store,
                objective=settings.objective,
                max_length=settings.max_length,
                short_probability=settings.short_probability,
                seed=settings.seed,
                pass_number=0,
                special=special,
            )
        )
        documents = np.asarray(store.document_offsets)
        planned = documents[: BLOCK_DOCUMENTS + 1][-1]
        follows = sequences["label"] == 0
        shown = sequences["a_length"].sum(dtype=np.int64) + sequences["b_length"][follows].sum(dtype=np.int64)
        split = store.split_sentences
        if not settings.next_sentence:
            split = count_long_sentences(
                store, objective=settings.objective, max_length=settings.max_length, special=special
            )
        return cls(
            documents=store.num_documents,
            sentences=store.num_sentences,
            tokens=store.num_tokens,
            unknown_tokens=store.unknown_tokens,
            one_sentence_documents=int(np.count_nonzero(np.diff(documents) == 1)),
            split_sentences=split,
            random_pairs=1 - float(follows.mean()) if settings.next_sentence else None,
            shown_tokens=float(shown / store.sentence_offsets[planned]),
        )

    @property
    def unknown(self) -> float:
        """The fraction of [UNK] among the tokens."""
        return self.unknown_tokens / self.tokens

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe_corpus(train: CorpusReport, held_out: CorpusReport) -> list[str]:
    """Returns lines about both sides, warnings last.

    Raises:
        ValueError: nothing can be learned, because every token is [UNK].
    """
    unknown = f"{train.unknown:.2%} of the tokens are [UNK] (held out: {held_out.unknown:.2%})"
    one_sentence = train.one_sentence_documents / train.documents
    split = train.split_sentences
    shown = f"the first pass shows at least {train.shown_tokens:.1%} of the tokens, other passes other tokens"
    if train.random_pairs is None:
        shown = "the first pass shows every token once, other passes cut elsewhere"
    lines = [
        f"corpus: {counted(train.documents, 'document')}, {counted(train.sentences, 'sentence')}, "
        f"{counted(train.tokens, 'token')}; held out: {counted(held_out.documents, 'document')}",
        f"corpus: {unknown}; {one_sentence:.1%} of the documents have one sentence",
        f"corpus: {counted(split, 'sentence')} longer than a row {'was' if split == 1 else 'were'} split; {shown}",
    ]
    advice = (
        "the vocabulary does not fit the text. Check its language, letter case and accents; words of more than 100 "
        "characters, as in text without spaces between words, are [UNK] too"
    )
    if train.unknown == 1:
        raise ValueError(f"all tokens of the corpus are [UNK]: {advice}")
    if max(train.unknown, held_out.unknown) > MANY_UNKNOWN:
        lines.append(f"warning: {unknown}: {advice}")
    if train.random_pairs is not None and train.random_pairs > MOST_RANDOM:
        lines.append(
            f"warning: {train.random_pairs:.0%} of the second sentences are random, because {one_sentence:.0%} of the "
            "documents have one sentence: next-sentence prediction learns little or nothing. The objective mlm "
            "needs no second sentences"
        )
    return lines
