"""The commands of `bert-jax` that use a model: each a dataclass whose fields are its arguments, with `run`.

Nothing here imports JAX until there is work to do, so that --help is quick.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tqdm import tqdm
from tyro.conf import Positional, arg

from bert_jax.cli.lines import (
    argument,
    as_json,
    columns,
    decoded,
    fields,
    portions,
    show_progress,
    whole,
)

STDIN = "standard input"


@dataclass(frozen=True)
class Command:
    """Base class of the commands that read texts."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder of a run or of a model, or name of a model on the Hugging Face hub."""
    texts: Annotated[Positional[tuple[str, ...]], arg(metavar="[TEXT ...]")] = ()
    """Texts; default: the lines of --file or of standard input."""
    file: str | None = None
    """File with one text per line; - is standard input."""
    json: bool = False
    """Write JSON lines."""
    max_length: int | None = None
    """Maximum number of tokens per window; longer texts are read in several windows. Default: the length the model was
    trained with, or the most it can read."""

    def run(self) -> None:
        """Prints the pipeline's output for every text."""
        with ExitStack() as stack:
            portions_of_texts = self.read_texts(stack)
            pipeline = self.pipeline(max_length=self.max_length, progress=False)
            outputs = self.outputs(pipeline, portions_of_texts)
            for number, output in tqdm(outputs, unit=" texts", disable=not show_progress()):
                for line in [as_json(output)] if self.json else self.lines(output, number):
                    print(line)

    def outputs(self, pipeline: Any, portions_of_texts: Iterator[Iterator[str]]) -> Iterator[tuple[int, Any]]:
        """Yields the number of each text, from 1, and the pipeline's output; an error names the line of its text."""
        number = 0
        for texts in portions_of_texts:
            outputs = pipeline.stream(map(self.parse, texts), **self.options())  # checks the options: no line is wrong
            try:
                for output in outputs:
                    number += 1
                    yield number, output
            except ValueError as error:
                where = "" if self.texts else f"{self.path or STDIN}:{number + 1}: "
                raise ValueError(f"{where}{error}") from None

    def read_texts(self, stack: ExitStack) -> Iterator[Iterator[str]]:
        """Returns the texts in portions; a file is open as long as `stack`."""
        if self.texts and self.file is not None:
            raise ValueError("texts are arguments or in --file, not both")
        if self.texts:
            self.note_files()
            return iter([map(argument, self.texts)])
        return (map(decoded, lines) for lines in portions(self.source(stack)))

    def note_files(self) -> None:
        """Prints a note on stderr if an argument is the name of a file: it is read as a text."""
        for text in filter(os.path.isfile, self.texts):
            note = f"note: {text} is a file, but is read as a text; to read the file, use --file {text}"
            print(f"bert-jax: {note}", file=sys.stderr)

    def source(self, stack: ExitStack) -> int:
        """Returns the file descriptor to read from."""
        if self.path is not None:
            return stack.enter_context(open(self.path, "rb")).fileno()
        if sys.stdin is None:
            raise ValueError("standard input is closed: give texts or --file")
        return sys.stdin.fileno()

    @property
    def path(self) -> str | None:
        """The file to read, or None for standard input."""
        return None if self.file == "-" else self.file

    def parse(self, text: str) -> Any:
        """Returns the input of the pipeline for a line."""
        return text

    def options(self) -> dict[str, Any]:
        """Returns the options of the pipeline's call."""
        return {}

    def pipeline(self, **options: Any) -> Any:
        """Loads the pipeline."""
        raise NotImplementedError

    def lines(self, output: Any, number: int) -> list[str]:
        """Returns the lines to print for the text with this number."""
        raise NotImplementedError


@dataclass(frozen=True)
class FillMask(Command):
    """Fill the [MASK]s of texts: the most likely tokens, each with its score."""

    top: int = 5
    """Number of tokens."""
    targets: str | None = None
    """Words to choose from, separated by commas; default: all."""

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import FillMask

        return FillMask.load(self.model, **options)

    def options(self) -> dict[str, Any]:
        return {"top": self.top, "targets": None if self.targets is None else self.targets.split(",")}

    def lines(self, output: Any, number: int) -> list[str]:
        found = [one for each in output for one in (each if isinstance(each, list) else [each])]
        return [fields(*(value for one in found for value in (one["token_str"], one["score"])))]


@dataclass(frozen=True)
class Classify(Command):
    """Classify texts: the label and its score."""

    top: int | None = None
    """Number of labels per text. Default: the best label, or all labels of a model for several labels."""
    pairs: bool = False
    """Each line is two texts separated by a tab."""

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import TextClassifier

        return TextClassifier.load(self.model, **options)

    def options(self) -> dict[str, Any]:
        return {} if self.top is None else {"top": self.top}

    def parse(self, text: str) -> Any:
        return columns(text, ("text", "text_pair")) if self.pairs else text

    def lines(self, output: Any, number: int) -> list[str]:
        found = output if isinstance(output, list) else [output]
        return [fields(*(value for one in found for value in (one["label"], one["score"])))]


@dataclass(frozen=True)
class Tag(Command):
    """Find entities: one line each, with the number of its text, start, end, type, score and the entity."""

    aggregation: Literal["first", "average", "max", "simple"] = "first"
    """How the pieces of a word are combined: the first decides, or average or max scores; simple: not at all."""

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import TokenClassifier

        return TokenClassifier.load(self.model, aggregation=self.aggregation, **options)

    def lines(self, output: Any, number: int) -> list[str]:
        return [
            fields(number, one["start"], one["end"], one["entity_group"], one["score"], one["word"]) for one in output
        ]


@dataclass(frozen=True)
class Embed(Command):
    """Embed texts: one vector per line."""

    pooling: str | None = None
    """Pooling over the tokens: mean, cls, max, weightedmean, lasttoken, mean_sqrt_len_tokens, or several joined by +.
    Default: that of a sentence-transformers folder, otherwise mean."""
    normalize: bool | None = None
    """Scale vectors to length 1. Default: as in a sentence-transformers folder, otherwise True."""
    prompt_name: str | None = None
    """Name of a prompt of a sentence-transformers folder. Default: the folder's default prompt."""

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import Embedder

        return Embedder.load(self.model, pooling=self.pooling, normalize=self.normalize, **options)

    def options(self) -> dict[str, Any]:
        return {} if self.prompt_name is None else {"prompt_name": self.prompt_name}

    def lines(self, output: Any, number: int) -> list[str]:
        return ["\t".join(f"{value:.8g}" for value in output.tolist())]


@dataclass(frozen=True)
class Answer(Command):
    """Answer questions from a context: the answer and its score.

    The texts are a question and its context. Without a context, the context is all of --file or of standard input.
    Without texts, each line is a question and its context separated by a tab."""

    top: int = 1
    """Number of answers."""
    max_answer_length: int = 30
    """Maximum number of tokens of an answer."""
    null_answer: bool = False
    """Allow no answer: the line then begins with a tab. Default: what the model's config says; implied by
    --null-threshold."""
    null_threshold: float | None = None
    """Predict no answer if its logit exceeds the best answer's by more than this. Default: the value in the model's
    config, otherwise 0."""

    def read_texts(self, stack: ExitStack) -> Iterator[Iterator[str]]:
        if len(self.texts) > 2 or (len(self.texts) == 2 and self.file is not None):
            raise ValueError("expected a question, and a context or --file")
        if not self.texts:
            return super().read_texts(stack)
        self.note_files()
        question, *context = self.texts
        text = context[0] if context else whole(self.source(stack), self.path or STDIN)
        return iter([map(argument, [f"{fields(question)}\t{text}"])])

    def parse(self, text: str) -> Any:
        return columns(text, ("question", "context"))

    def pipeline(self, **options: Any) -> Any:
        from bert_jax.pipelines import QuestionAnswerer

        return QuestionAnswerer.load(self.model, **options)

    def options(self) -> dict[str, Any]:
        return {
            "top": self.top,
            "max_answer_length": self.max_answer_length,
            "null_threshold": self.null_threshold,
            "null_answer": self.null_answer or None,
        }

    def lines(self, output: Any, number: int) -> list[str]:
        found = output if isinstance(output, list) else [output]
        return [fields(*(value for one in found for value in (one["answer"], one["score"])))]


@dataclass(frozen=True)
class Attention:
    """Write a page that shows what the attention heads of a model look at in a text; open it in a browser."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder of a run or of a model, or name of a model on the Hugging Face hub."""
    text: Annotated[Positional[str], arg(metavar="TEXT")]
    """The text, of up to 128 tokens."""
    pair: str | None = None
    """A second text."""
    output: str = "attention.html"
    """The file to write; it needs no network and no other file."""

    def run(self) -> None:
        from bert_jax.interop.loading import load
        from bert_jax.plotting import write_attention_page

        write_attention_page(self.output, load(self.model), argument(self.text), self.pair and argument(self.pair))
        print(self.output)


@dataclass(frozen=True)
class Convert:
    """Write a model in Hugging Face's format: config.json, model.safetensors and the files of the tokenizer."""

    source: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder of a run or of a model, or name of a model on the Hugging Face hub."""
    destination: Annotated[Positional[str], arg(metavar="FOLDER")]
    """Folder to write to; it is made if it does not exist."""
    head: str | None = None
    """Model class to write, such as BertForMaskedLM or BertModel; default: that of the source."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """dtype of the weights in the file; default: float32."""
    license: str | None = None
    """Licence for the model card: an identifier of the hub, such as apache-2.0."""
    overwrite: bool = False
    """Replace the model in FOLDER."""

    def run(self) -> None:
        from bert_jax.interop.heads import architecture
        from bert_jax.interop.loading import find_model, load

        if not self.overwrite and (existing := find_model(self.destination)):
            raise ValueError(f"{existing} is there already: choose another folder, or set `overwrite`")
        bert = load(self.source, head=self.head)
        bert.save_pretrained(self.destination, dtype=self.dtype, overwrite=self.overwrite, license=self.license)
        print(f"{architecture(type(bert.model), bert.config.model_type)} in {self.destination}")


@dataclass(frozen=True)
class Push:
    """Upload a model to the Hugging Face hub, with a model card, in one commit.

    The files are those that convert writes. A token with write access is needed: hf auth login, or HF_TOKEN."""

    source: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder of a run or of a model, or name of a model on the Hugging Face hub."""
    repo: Annotated[Positional[str], arg(metavar="OWNER/NAME")]
    """Name of the repository, which is made unless it exists."""
    private: bool = False
    """Make a private repository."""
    license: str | None = None
    """Licence for the model card: an identifier of the hub, such as apache-2.0."""
    overwrite: bool = False
    """Add a commit to a repository that exists."""

    def run(self) -> None:
        from bert_jax.interop.loading import load
        from bert_jax.interop.pushing import require_token

        require_token(self.repo)  # before the model is loaded
        bert = load(self.source)
        print(bert.push_to_hub(self.repo, private=self.private, license=self.license, overwrite=self.overwrite))


@dataclass(frozen=True)
class Inspect:
    """Describe a model: its config, its number of parameters by part, and the heads it can be loaded with."""

    source: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder of a run or of a model, or name of a model on the Hugging Face hub."""
    json: bool = False
    """Print one line of JSON."""

    def run(self) -> None:
        from bert_jax.cli.inspection import inspect, report
        from bert_jax.data.preparation.store import is_store

        if is_store(Path(self.source).expanduser()):
            raise ValueError(f"{self.source} is a prepared corpus and not a model; `bert-jax doctor` describes it")
        found = inspect(self.source)
        print(as_json(found) if self.json else report(found))
