"""The `bert-jax` command: answers in a shell pipe, and checkpoints looked at and converted.

    bert-jax classify MODEL "a wonderful film ."
    bert-jax tag MODEL --file articles.txt --json | jq .
    zcat reviews.gz | bert-jax classify MODEL | cut -f1 | sort | uniq -c
    bert-jax answer MODEL "who wrote it?" < article.txt
    bert-jax convert RUN FOLDER

Texts are arguments, the lines of --file, or those of standard input, and are answered in order: a line each, tabs
between its fields, or with --json a line of JSON. A line that cannot be answered ends it with exit code 1: those before
are answered, and its number is given.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm
from tyro.conf import FlagCreatePairsOff, Positional, arg, subcommand

from bert_jax.cli import process
from bert_jax.cli.lines import (
    argument,
    as_json,
    columns,
    decoded,
    fields,
    portions,
    progress_is_welcome,
    whole,
)

# Nothing above imports JAX, and nothing below does before there is work: --help is to be quick.

STDIN = "standard input"


@dataclass(frozen=True)
class Command:
    """What the commands on texts have in common."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The folder of a run or of a model, or the name of a model on the Hugging Face hub."""
    texts: Annotated[Positional[tuple[str, ...]], arg(metavar="[TEXT ...]")] = ()
    """The texts; default: the lines of --file or of standard input."""
    file: str | None = None
    """A file of texts, one a line; - is standard input."""
    json: bool = False
    """Write JSON lines."""
    max_length: int | None = None
    """Tokens of a window; longer texts are read in several. Default: what the model was trained to read, else what
    it takes."""

    def run(self) -> None:
        """Answers every text."""
        with ExitStack() as stack:
            given = self.given(stack)
            pipeline = self.pipeline(max_length=self.max_length, progress=False)
            bar = tqdm(self.answers(pipeline, given), unit=" texts", disable=not progress_is_welcome())
            for number, answer in bar:
                for line in [as_json(answer)] if self.json else self.lines(answer, number):
                    print(line, flush=True)

    def answers(self, pipeline: Any, given: Iterator[Iterator[str]]) -> Iterator[tuple[int, Any]]:
        """Yields the number of each text, from 1 on, and the answer; names the line of one that cannot be answered."""
        number = 0
        for texts in given:
            found = pipeline.stream(map(self.read, texts), **self.options())
            try:
                for answer in found:
                    number += 1
                    yield number, answer
            except ValueError as error:
                place = "" if self.texts else f"{self.path or STDIN}:{number + 1}: "
                raise ValueError(f"{place}{error}") from None

    def given(self, stack: ExitStack) -> Iterator[Iterator[str]]:
        """Returns the texts, some at a time; a file is open as long as `stack`."""
        if self.texts and self.file is not None:
            raise ValueError("texts are given as arguments or in --file, not both")
        if self.texts:
            return iter([map(argument, self.texts)])
        return (map(decoded, lines) for lines in portions(self.source(stack)))

    def source(self, stack: ExitStack) -> int:
        """Returns the file descriptor to read from."""
        if self.path is not None:
            return stack.enter_context(open(self.path, "rb")).fileno()
        if sys.stdin is None:
            raise ValueError("standard input is closed: wanted texts, --file or something to read")
        return sys.stdin.fileno()

    @property
    def path(self) -> str | None:
        """The file to read; None for standard input."""
        return None if self.file == "-" else self.file

    def read(self, text: str) -> Any:
        """Returns what the pipeline is asked for a line."""
        return text

    def options(self) -> dict[str, Any]:
        """Returns the options of the pipeline's call."""
        return {}

    def pipeline(self, **options: Any) -> Any:
        """Loads the pipeline."""
        raise NotImplementedError

    def lines(self, answer: Any, number: int) -> list[str]:
        """Returns the lines of an answer to the text with this number."""
        raise NotImplementedError


@dataclass(frozen=True)
class FillMask(Command):
    """Fill the [MASK]s of texts: the likeliest tokens, each with its score."""

    top: int = 5
    """How many."""
    targets: str | None = None
    """The words to choose among, with commas between; default: all."""

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import FillMask

        return FillMask.load(self.model, **options)

    def options(self) -> dict[str, Any]:
        return {"top": self.top, "targets": None if self.targets is None else self.targets.split(",")}

    def lines(self, answer: Any, number: int) -> list[str]:
        found = [one for each in answer for one in (each if isinstance(each, list) else [each])]
        return [fields(*(value for one in found for value in (one["token_str"], one["score"])))]


@dataclass(frozen=True)
class Classify(Command):
    """Classify texts: the label and its score."""

    top: int = 1
    """How many labels."""
    pairs: bool = False
    """Each line holds two texts with a tab between."""

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import TextClassifier

        return TextClassifier.load(self.model, **options)

    def options(self) -> dict[str, Any]:
        return {"top": self.top}

    def read(self, text: str) -> Any:
        return columns(text, ("text", "text_pair")) if self.pairs else text

    def lines(self, answer: Any, number: int) -> list[str]:
        found = answer if isinstance(answer, list) else [answer]
        return [fields(*(value for one in found for value in (one["label"], one["score"])))]


@dataclass(frozen=True)
class Tag(Command):
    """Find entities: a line each, with the number of its text, start, end, kind, score and the entity."""

    aggregation: Literal["first", "average", "max", "simple"] = "first"
    """Which piece speaks for a word; simple: each for itself."""

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import TokenClassifier

        return TokenClassifier.load(self.model, aggregation=self.aggregation, **options)

    def lines(self, answer: Any, number: int) -> list[str]:
        return [
            fields(number, one["start"], one["end"], one["entity_group"], one["score"], one["word"]) for one in answer
        ]


@dataclass(frozen=True)
class Embed(Command):
    """Turn texts into vectors, a line each."""

    pooling: Literal["mean", "cls", "max"] | None = None
    """Over the vectors of the tokens. Default: what a folder of sentence-transformers says, else mean."""
    normalize: bool | None = None
    """To length 1. Default: what a folder of sentence-transformers says, else True."""

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import Embedder

        return Embedder.load(self.model, pooling=self.pooling, normalize=self.normalize, **options)

    def lines(self, answer: Any, number: int) -> list[str]:
        return ["\t".join(f"{value:.8g}" for value in answer.tolist())]


@dataclass(frozen=True)
class Answer(Command):
    """Answer questions from a context: the answer and its score.

    The texts are a question and its context; without a context, that is the whole of --file or of standard input.
    Without a question, each line holds a question and its context with a tab between."""

    top: int = 1
    """How many answers."""
    max_answer_length: int = 30
    """In tokens."""
    null_answer: bool = False
    """There may be no answer: the line begins with a tab then. Default: as the model says, or where there is a
    threshold."""
    null_threshold: float | None = None
    """How much likelier than the best answer, as a difference of logits, no answer must be. Default: as the model says,
    else 0."""

    def given(self, stack: ExitStack) -> Iterator[Iterator[str]]:
        if len(self.texts) > 2 or (len(self.texts) == 2 and self.file is not None):
            raise ValueError("wanted a question, and a context or --file")
        if not self.texts:
            return super().given(stack)
        question, *context = self.texts
        text = context[0] if context else whole(self.source(stack), self.path or STDIN)
        return iter([map(argument, [f"{fields(question)}\t{text}"])])

    def read(self, text: str) -> Any:
        return columns(text, ("question", "context"))

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import QuestionAnswerer

        return QuestionAnswerer.load(self.model, **options)

    def options(self) -> dict[str, Any]:
        names = ("top", "max_answer_length", "null_threshold")
        return {name: getattr(self, name) for name in names} | {"null_answer": self.null_answer or None}

    def lines(self, answer: Any, number: int) -> list[str]:
        found = answer if isinstance(answer, list) else [answer]
        return [fields(*(value for one in found for value in (one["answer"], one["score"])))]


@dataclass(frozen=True)
class Convert:
    """Write a model in Hugging Face's layout: config.json, model.safetensors and the tokenizer's files."""

    source: Annotated[Positional[str], arg(metavar="MODEL")]
    """The folder of a run or of a model, or the name of a model on the Hugging Face hub."""
    destination: Annotated[Positional[str], arg(metavar="FOLDER")]
    """A folder, made when missing."""
    head: str | None = None
    """The model to take out of it, such as BertForMaskedLM or BertModel; default: the one it is."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the file; default: float32."""

    def run(self) -> None:
        from bert_jax.interop.heads import architecture
        from bert_jax.interop.loading import load

        bert = load(self.source, head=self.head)
        bert.save_pretrained(self.destination, dtype=self.dtype)
        print(f"{architecture(type(bert.model))} in {self.destination}")


@dataclass(frozen=True)
class Inspect:
    """Say what a model is: its config, its parameters by part, and the heads that were found."""

    source: Annotated[Positional[str], arg(metavar="MODEL")]
    """The folder of a run or of a model, or the name of a model on the Hugging Face hub."""
    json: bool = False
    """Write a line of JSON."""

    def run(self) -> None:
        from bert_jax.cli.inspection import inspect, report

        found = inspect(self.source)
        print(as_json(found) if self.json else report(found))


COMMANDS = (
    Annotated[FillMask, subcommand("fill-mask")]
    | Annotated[Classify, subcommand("classify")]
    | Annotated[Tag, subcommand("tag")]
    | Annotated[Answer, subcommand("answer")]
    | Annotated[Embed, subcommand("embed")]
    | Annotated[Convert, subcommand("convert")]
    | Annotated[Inspect, subcommand("inspect")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0; 1 with a line on stderr; 2 when it was called wrongly."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes on the machine are not part of an answer

    def act() -> None:
        command: Any = tyro.cli(
            COMMANDS,  # pyright: ignore[reportArgumentType, reportCallIssue]
            args=arguments,
            prog="bert-jax",
            description=__doc__,
            config=(FlagCreatePairsOff,),
        )
        command.run()

    return process.run(act, "bert-jax")


if __name__ == "__main__":
    sys.exit(main())
