"""The base class of all pipelines: one text, a list or an iterator of texts in; answers in the same form and order out.

Texts are processed a few thousand at a time, so an iterator of a million takes no more memory than a few thousand. A
pipeline defines three steps: the sequences of a text; what to keep of the model's outputs, computed on the device; and
the answer, computed from that on the host. The answers to the texts before an invalid text are still returned.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import numpy as np
from tqdm import tqdm

from bert_jax.interop.heads import architecture
from bert_jax.interop.loading import LoadedBert, load
from bert_jax.models import Outputs
from bert_jax.pipelines.batching import Batcher, Encoded
from bert_jax.pipelines.documents import Document, Pair, read_documents
from bert_jax.text.inputs import require_string
from bert_jax.text.tokenizer import Tokenizer

MAX_CHARACTERS = 1 << 23  # of the texts processed together
PROGRESS_DELAY = 2.0  # seconds before the progress bar appears


class Pipeline:
    """A loaded model that answers texts.

    Args:
        bert: the result of `bert_jax.load`.
        max_length: tokens of a window with its special tokens; None: the tokenizer's `model_max_length` if it has one,
            otherwise the model's number of positions.
        overlap: tokens shared by neighbouring windows of a long text; at most half of a window.
        batch_tokens: tokens of a batch; None: a default for the platform.
        window: number of texts processed together; with 1 each text is answered before the next one is read.
        progress: show a progress bar on stderr; None: if that is a terminal and the call takes over two seconds.
        special_tokens: read [SEP] and the other special tokens in texts as special tokens, for templates that contain
            them. None: as the model was trained; by default they are text like any other.

    Raises:
        ValueError: a model without the required head or without a vocabulary; an impossible number.
    """

    models: ClassVar[tuple[str, ...]] = ()  # classes with the required head; () = any model
    task: ClassVar[str | None] = None  # the task that trains such a head; None: pretraining does
    everywhere: ClassVar[bool] = False  # one result per token instead of one per sequence
    offsets: ClassVar[bool] = False  # whether the characters of tokens are needed
    whole_first: ClassVar[str | None] = None  # name of a first text that must not be truncated, for the error

    def __init__(
        self,
        bert: LoadedBert,
        *,
        max_length: int | None = None,
        overlap: int = 128,
        batch_tokens: int | None = None,
        window: int = 4096,
        progress: bool | None = None,
        special_tokens: bool | None = None,
    ) -> None:
        self.require_head(bert, "this")
        limit = bert.config.max_length
        shortest = shortest_window(bert.tokenizer)
        if max_length is None:
            max_length = min(limit, max(shortest, bert.tokenizer.max_length or limit))
        if not shortest <= max_length <= limit:
            raise ValueError(
                f"`max_length` must lie between {shortest} and the model's {limit} positions, got {max_length}"
            )
        if overlap < 0 or window < 1:
            raise ValueError(f"`overlap` must be at least 0 and `window` at least 1, got {overlap} and {window}")
        self.bert = bert
        self.tokenizer = bert.tokenizer
        if special_tokens is not None:
            self.tokenizer = self.tokenizer.with_settings(split_special_tokens=not special_tokens)
        self.max_length = max_length
        self.overlap = overlap
        self.window = window
        self.progress = progress
        self.batcher = Batcher(self.compute, bert.params, max_length=max_length, batch_tokens=batch_tokens)

    @classmethod
    def load(cls, source: str | Path, *, dtype: str | None = None, revision: str | None = None, **options: Any) -> Self:
        """Loads a model and makes a pipeline of it.

        Args:
            source, dtype, revision: see `bert_jax.load`.
            **options: see the class.
        """
        bert = load(source, dtype=dtype, revision=revision)
        cls.require_head(bert, str(source))
        return cls(bert, **options)

    @classmethod
    def require_head(cls, bert: LoadedBert, name: str) -> None:
        """Raises ValueError for a model without the head of this pipeline; says how to get one.

        Args:
            name: of the model, for the message.
        """
        if cls.models and type(bert.model).__name__ not in cls.models:
            family = bert.config.family
            models = [f"{family.class_prefix}{model.removeprefix('Bert')}" for model in cls.models]
            if not family.has_next_sentence:
                models = [model for model in models if not model.endswith("ForPreTraining")]
            kind = architecture(type(bert.model), bert.config.model_type)
            remedy = f'fine-tune it first, with `finetune(make_settings("{cls.task}", model=...))`'
            if cls.task is None:
                remedy = "load the pretrained model instead, not one that was fine-tuned from it"
            raise ValueError(f"{cls.__name__} needs a {' or a '.join(models)}; {name} is a {kind}: {remedy}")

    def __call__(self, texts: Any, **options: Any) -> Any:
        """Answers one text; a list of texts with a list; an iterator of texts with an iterator.

        A pair of texts is `{"text": ..., "text_pair": ...}`. If it does not fit into one window, the second text is
        read in several windows and the first one is truncated to half of a window.

        Raises:
            TypeError: an unknown option.
            ValueError: an invalid option; an invalid text, with its index in the list, or, from an iterator, after the
                answers to the texts before it.
        """
        if isinstance(texts, str | Mapping):
            return next(self.stream([texts], **options))
        if isinstance(texts, bytes) or not isinstance(texts, Iterable):
            raise ValueError(f"texts must be a string, a dict or an iterable of these, got {type(texts).__name__}")
        if isinstance(texts, Sized):
            return self.collect(list(with_index(self.stream(texts, total=len(texts), **options))))
        return self.stream(texts, **options)

    def stream(self, texts: Iterable[Any], *, total: int | None = None, **options: Any) -> Iterator[Any]:
        """Returns an iterator over the answers to texts, in order. Options are checked at once.

        Errors in a text, or of the iterator of texts, are raised after the answers to the texts before it.
        """
        defaults = self.default_options()
        if unknown := options.keys() - defaults.keys():
            raise TypeError(f"{type(self).__name__} has no option {min(unknown)!r}")
        options = defaults | options
        run = partial(self.batcher.run, arrays=self.arrays(options), **self.static(options))
        hidden = not (sys.stderr.isatty() if self.progress is None else self.progress)

        def answers() -> Iterator[Any]:
            with tqdm(total=total, disable=hidden, delay=PROGRESS_DELAY, unit=" texts") as bar:
                for pairs in group_texts(map(self.pair, texts), self.window):
                    yield from self.answers(pairs, run, bar, options)

        return answers()

    def answers(
        self, pairs: list[Pair], run: Callable[..., Any], bar: tqdm, options: Mapping[str, Any]
    ) -> Iterator[Any]:
        """Yields the answers to texts processed together; the error of an invalid text is raised after them."""
        documents: list[Document] = []
        results: list[list[Any]] = []
        failures: list[ValueError] = []
        for (number, part), result in run(until_failure(self.keyed_sequences(pairs, documents, results), failures)):
            results[number][part] = result
            bar.update(part == len(results[number]) - 1)
        for number, document in enumerate(documents):
            answer = self.answer(document, results[number], options)
            results[number] = []  # frees memory while the other texts are answered
            yield answer
        if failures:
            raise failures[0]

    def keyed_sequences(
        self, pairs: list[Pair], documents: list[Document], results: list[list[Any]]
    ) -> Iterator[tuple[tuple[int, int], Encoded]]:
        """Yields the sequences of the texts with keys (text, sequence), and appends each text to the two lists."""
        read = read_documents(
            pairs,
            self.tokenizer,
            max_length=self.max_length,
            overlap=self.overlap,
            offsets=self.offsets,
            whole_first=self.whole_first,
            special=self.special_tokens(),
        )
        for number, document in enumerate(read):
            config = self.bert.config
            if document.segment_b and config.uses_token_types and config.type_vocab_size < 2:
                raise ValueError("this model has one token type, so it cannot read pairs of texts")
            sequences = self.sequences(document)
            documents.append(document)
            results.append([None] * len(sequences))
            for part, sequence in enumerate(sequences):
                yield (number, part), sequence

    def compute(self, params: Any, batch: Mapping[str, jax.Array], **options: Any) -> Any:
        """Runs the model on a batch, on the device."""
        inputs: dict[str, Any] = {name: array for name, array in batch.items() if name != "positions"}
        positions = batch.get("positions")
        outputs: Any = self.bert.model.apply(
            {"params": params}, **inputs, masked_positions=positions, cls_positions=positions
        )
        return self.select(outputs, batch, options)

    # The steps that differ between pipelines

    def special_tokens(self) -> tuple[str, ...]:
        """Returns the special tokens that are never text."""
        return ()

    def default_options(self) -> dict[str, Any]:
        """Returns the options of a call with their defaults."""
        return {}

    def pair(self, given: Any) -> Pair:
        """Checks a given text and returns it as a pair."""
        if not isinstance(given, Mapping):
            return None, require_string(given)
        if given.keys() != {"text", "text_pair"}:
            raise ValueError(f"a pair needs the keys text and text_pair, got {', '.join(map(str, given)) or 'none'}")
        return require_string(given["text"], "a first text"), require_string(given["text_pair"])

    def sequences(self, document: Document) -> list[Encoded]:
        """Returns the sequences of a document: one per window, with a result at [CLS] or for every token."""
        position = None if self.everywhere else 0
        return [document.encoded(window, position) for window in document.windows]

    def static(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Checks the options of a call; returns those that `select` needs at compile time."""
        return {}

    def arrays(self, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the options of a call that `select` needs as arrays."""
        return {}

    def select(self, outputs: Outputs, batch: Mapping[str, jax.Array], options: Mapping[str, Any]) -> Any:
        """Returns the results to fetch: arrays [B, P, ...] for the P `positions` of the batch, otherwise [B, T, ...].

        Args:
            options: those that `static` and `arrays` returned.
        """
        raise NotImplementedError

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> Any:
        """Returns the answer from the results of each sequence of the document: [1, ...], or [tokens, ...]."""
        raise NotImplementedError

    def collect(self, answers: list[Any]) -> Any:
        """Returns the answers to a list of texts in their final form."""
        return answers


def shortest_window(tokenizer: Tokenizer) -> int:
    """Returns the tokens of the shortest pair: for BERT [CLS] first [SEP] text [SEP]."""
    return tokenizer.layout.pair + 2


def group_texts(pairs: Iterable[Pair], window: int) -> Iterator[list[Pair]]:
    """Yields lists of up to `window` texts, fewer if they are very long, and the last ones before an error."""
    group: list[Pair] = []
    characters = 0
    try:
        for first, text in pairs:
            group.append((first, text))
            characters += len(first or "") + len(text)
            if len(group) == window or characters > MAX_CHARACTERS:
                yield group
                group = []
                characters = 0
    except Exception:
        if group:
            yield group
        raise
    if group:
        yield group


def until_failure(items: Iterator[Any], failures: list[ValueError]) -> Iterator[Any]:
    """Yields items up to an error, which is appended to the list."""
    try:
        yield from items
    except ValueError as error:
        failures.append(error)


def with_index(answers: Iterator[Any]) -> Iterator[Any]:
    """Yields the answers to a list of texts; the error of an invalid text gets its index."""
    index = 0
    try:
        for answer in answers:
            index += 1
            yield answer
    except ValueError as error:
        raise ValueError(f"texts[{index}]: {error}") from error
