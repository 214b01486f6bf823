"""Small models and data for fine-tuning on one device; a run takes a second or two."""

import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from safetensors.numpy import save_file

import finetune as script
from bert_jax import models
from bert_jax.config import BertConfig
from bert_jax.interop.loading import LoadedBert
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import parallel

GOOD = ["wonderful", "lovely", "great", "moving", "superb"]
BAD = ["terrible", "dull", "awful", "boring", "poor"]
OTHER = ["the", "a", "film", "story", "was", "very", "and", "it", "its", "cast", "plot", "of", "in", "with", "seemed"]
PEOPLE, PLACES = ["anna", "boris", "clara", "dmitri"], ["paris", "oslo", "lima", "cairo"]
POSITIONS = 64


def make_model(folder: Path, head: str = "BertForPreTraining", **changes) -> Path:
    """An untrained model with the vocabulary of this data."""
    words = [*GOOD, *BAD, *OTHER, *PEOPLE, *PLACES, "who", "where", "lives", "?", "."]
    tokenizer = Tokenizer.train([" ".join(words)] * 3, 400, min_frequency=1)
    sizes = {
        "vocab_size": tokenizer.vocab_size, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 20, "max_position_embeddings": POSITIONS, "initializer_range": 0.2,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    model = getattr(models, head)(BertConfig(**{**sizes, **changes}))
    shape = (1, 2, 2) if head == "BertForMultipleChoice" else (1, 2)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros(shape, np.int32))["params"]
    LoadedBert(model, params, tokenizer).save_pretrained(folder)
    return folder


def sentence(random: np.random.Generator, word: str, low: int = 2, high: int = 9) -> str:
    words = random.choice(OTHER, random.integers(low, high)).tolist()
    words.insert(random.integers(len(words) + 1), word)
    return " ".join(words)


def reviews(path: Path, count: int, seed: int = 0, header: str = "text\tlabel") -> Path:
    """Sentences with one good or one bad word."""
    random = np.random.default_rng(seed)
    lines = [header]
    for number in range(count):
        kind = int(random.integers(2))
        lines.append(f"{sentence(random, str(random.choice((BAD, GOOD)[kind])))} {number % 7}\t{kind}")
    path.write_text("\n".join(lines) + "\n")
    return path


def tagged(path: Path, count: int, seed: int = 0) -> Path:
    """Sentences with tagged people and places."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        for _ in range(random.integers(2, 9)):
            kind = random.integers(4)
            word = str(random.choice((PEOPLE, PLACES, OTHER, OTHER)[kind]))
            lines.append(f"{word}\t{('B-person', 'B-place', 'O', 'O')[kind]}")
        lines.append("")
    path.write_text("\n".join(lines) + "\n")
    return path


def questions(path: Path, count: int, seed: int = 0, *, version_2: bool = False) -> Path:
    """Who lives where, in SQuAD's own JSON."""
    random = np.random.default_rng(seed)
    entries = []
    for number in range(count):
        person, place = str(random.choice(PEOPLE)), str(random.choice(PLACES))
        context = f"{sentence(random, 'film', 1, 9)} . {person} lives in {place} . {sentence(random, 'plot', 1, 9)} ."
        answers = [{"text": place, "answer_start": context.index(place)}]
        entry = {"id": f"q{number}", "question": f"where lives {person} ?", "answers": answers}
        if version_2:
            impossible = number % 3 == 0
            entry |= {"is_impossible": impossible, "answers": [] if impossible else answers}
        entries.append({"context": context, "qas": [entry]})
    path.write_text(json.dumps({"version": "x", "data": [{"title": "t", "paragraphs": entries}]}))
    return path


def choices(path: Path, count: int, seed: int = 0, number: int = 3) -> Path:
    """Continuations; the one with a good word is right."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        right = int(random.integers(number))
        words = [str(random.choice(GOOD if i == right else BAD)) for i in range(number)]
        endings = {f"ending{i}": sentence(random, word, 1, 6) for i, word in enumerate(words)}
        rows.append({"sent1": sentence(random, "film"), "sent2": "it was", **endings, "label": right})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ENDS = {"classification": ".tsv", "tokens": ".conll", "squad": ".json", "multiple-choice": ".jsonl"}


def make_place(folder: Path) -> Path:
    """A model, and data for every task, with the file endings of `ENDS`."""
    make_model(folder / "model")
    for name, count, seed in (("train", 36, 0), ("dev", 13, 1)):
        reviews(folder / f"{name}.tsv", count, seed)
        tagged(folder / f"{name}.conll", count, seed)
        questions(folder / f"{name}.json", count, seed)
        questions(folder / f"{name}-v2.json", count, seed, version_2=True)
        choices(folder / f"{name}.jsonl", count, seed)
    return folder


@contextmanager
def devices(count: int):
    """Makes the program use `count` devices."""
    some = jax.devices()[:count]

    def on_some(make: Callable) -> Callable:
        return lambda *args, devices=None, **options: make(*args, devices=devices or some, **options)

    with (
        mock.patch.object(parallel, "make_layout", on_some(parallel.make_layout)),
        mock.patch.object(parallel, "make_mesh", on_some(parallel.make_mesh)),
    ):
        yield


def finetune(kind: str, output: Path, *flags: object, on: int = 1) -> Path:
    """Runs finetune.py."""
    with devices(on):
        often = [] if "--do" in flags else ["--log-every", "1"]
        script.main([kind, "--output", str(output), "--quiet", *often, *map(str, flags)])
    return output


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def predictions(run: Path, name: str = "predictions.jsonl") -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def save(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Replaces a model's weights."""
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
