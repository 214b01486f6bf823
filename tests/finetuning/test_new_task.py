"""A new task is one file with its settings and one entry in `TASKS`: the program and the command know it then."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import small_finetuning as small

from bert_jax.data.readers.examples import TextExample
from bert_jax.models import Bert, BertForSequenceClassification
from bert_jax.tasks import TASKS
from bert_jax.tasks.base import PreparedData, TaskData
from bert_jax.tasks.classification import Classification


@dataclass(frozen=True)
class WordData(TaskData):
    """Data: one sentence per line"""

    word: str = "film"
    """The word to find."""

    summary: ClassVar[str] = "Find out whether a sentence contains a word"
    model: ClassVar[type[Bert]] = BertForSequenceClassification
    training_defaults: ClassVar = {"epochs": 1}

    def read_and_encode(self, source, do):
        task = Classification("single_label_classification", ("absent", "present"))
        splits = []
        for name, path, _ in self.sources(do):
            lines = Path(path).read_text().splitlines()
            labels = ["present" if self.word in line.split() else "absent" for line in lines]
            examples = [TextExample(line, None, label, path) for line, label in zip(lines, labels, strict=True)]
            splits.append(task.encode(name, examples, source.tokenizer, max_length=self.max_length))
        return PreparedData(task, splits)


def test_a_new_task_needs_only_an_entry_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "word", WordData)
    small.make_model(tmp_path / "model")
    texts = ["a lovely film", "a dull story", "the cast was great", "the film was poor"]
    (tmp_path / "texts.txt").write_text("\n".join(texts * 3) + "\n")
    data = ["--train", tmp_path / "texts.txt", "--dev", tmp_path / "texts.txt", "--max-length", "16"]
    run = small.finetune("word", tmp_path / "run", "--model", tmp_path / "model", *data, "--word", "story")
    assert [one["gold"] for one in small.predictions(run)[:4]] == ["absent", "present", "absent", "absent"]
    settings = json.loads((run / "training.json").read_text())["settings"]
    assert settings["task"] == {"name": "word"}
    assert settings["data"]["word"] == "story"
    assert settings["training"]["epochs"] == 1
