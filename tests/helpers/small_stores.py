"""Small corpora in many parts."""

import gzip
import json
import random
from pathlib import Path

import datasets
import pyarrow as pa
from pyarrow import parquet

from bert_jax.data.preparation import inputs, settings
from bert_jax.data.preparation.settings import Preparation
from bert_jax.text.tokenizer import Tokenizer

WORDS = ["owl", "hoots", "the", "Mr.", "caf\u00e9", "\u0434\u043e\u043c", "not-known", "a", "forest", "night"]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Documents of one to five sentences; some have a copy."""
    draw = random.Random(seed)

    def sentence() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 13))).capitalize() + "."

    texts = [" ".join(sentence() for _ in range(draw.randint(1, 5))) for _ in range(count)]
    texts[count // 2] = texts[1].upper()
    return texts


def write_corpus(folder: Path) -> tuple[str, ...]:
    """Writes text, JSON lines, gzip, parquet and a dataset; returns the sources."""
    folder.mkdir(exist_ok=True)
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text("\n\n".join(random_texts(43, ord(name))), encoding="utf-8")
    lines = [json.dumps({"text": text, "id": 7}) for text in random_texts(31)]
    (folder / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with gzip.open(folder / "d.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(random_texts(11, 3)))
    parquet.write_table(pa.table({"text": random_texts(37, 5)}), folder / "e.parquet", row_group_size=5)
    datasets.Dataset.from_dict({"text": random_texts(29, 7)}).save_to_disk(folder / "f")
    return (f"{folder}/*.txt", *(str(folder / name) for name in ("c.jsonl", "d.txt.gz", "e.parquet", "f")))


def small_parts(monkeypatch) -> None:
    """Makes parts of a KiB."""
    monkeypatch.setattr(settings, "MEBI", 1 << 10)
    monkeypatch.setattr(inputs, "SMALLEST_COST", 97)


def small_preparation(folder: Path, corpus: tuple[str, ...], output: str = "store", **options) -> Preparation:
    """Settings of a store in `folder`, with a tokenizer unless a `vocab_size` is given."""
    if "vocab_size" not in options:
        if not (folder / "tokenizer").exists():
            Tokenizer.train(random_texts(31), 61).save(folder / "tokenizer")
        options["tokenizer"] = str(folder / "tokenizer")
    return Preparation(str(folder / output), corpus, **{"part_size": 1, "held_out": 0.2, **options})


def files_of(folder: Path) -> dict[str, bytes]:
    """Returns the files of a store by their names; logs are no part of it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "logs")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
