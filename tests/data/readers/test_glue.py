"""GLUE's own files and the hub give the same examples, under the same names of classes."""

from unittest.mock import Mock

import datasets
import numpy as np
import pytest

from bert_jax.data.readers.glue import GLUE, glue_task, read_glue
from bert_jax.data.readers.report import ReadReport, Tally
from bert_jax.tasks.problems import PROBLEMS

MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
TRAIN_MNLI, DEV_MNLI = (
    f"{MNLI}sentence1 sentence2 label1 gold_label",
    (f"{MNLI}sentence1 sentence2 label1 label2 label3 label4 label5 gold_label"),
)
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"
# What GLUE's own files look like: (file, lines whose columns are set apart by |), and what is to be read from them.
FILES = {
    ("cola", "train"): ("CoLA/train.tsv", 'gj04|1||Our "friends win.\ngj04|0|*|They drank pub.',
                        [('Our "friends win.', None, "acceptable"), ("They drank pub.", None, "unacceptable")]),
    ("cola", "test"): ("CoLA/test.tsv", "index|sentence\n0|Bill coughed.", [("Bill coughed.", None, None)]),
    ("sst2", "validation"): ("SST-2/dev.tsv", "sentence|label\nfine . |1", [("fine . ", None, "positive")]),
    ("sst2", "test"): ("SST-2/test.tsv", "index|sentence\n0|dull", [("dull", None, None)]),
    ("mrpc", "train"): ("MRPC/train.tsv", "\ufeffQuality|#1 ID|#2 ID|#1 String|#2 String\n1|70|71|He said.|\"He did.",
                        [("He said.", '"He did.', "equivalent")]),
    ("mrpc", "test"): ("MRPC/test.tsv", "\ufeffindex|#1 ID|#2 ID|#1 String|#2 String\n0|10|11|a|b", [("a", "b", None)]),
    ("stsb", "validation"): ("STS-B/dev.tsv", f"{STSB} score".replace(" ", "|") + "\n0|m|f|2012|1|n|n|a|b|4.750",
                             [("a", "b", 4.75)]),
    ("stsb", "test"): ("STS-B/test.tsv", STSB.replace(" ", "|") + "\n0|m|f|2012|1|n|n|a|b", [("a", "b", None)]),
    ("qqp", "train"): ("QQP/train.tsv", "id|qid1|qid2|question1|question2|is_duplicate\n1|2|3|How?|Who?|0\n"
                       "4|5|6|half a question\n7|8|9|a|b|1",
                       [("How?", "Who?", "not_duplicate"), ("a", "b", "duplicate")]),
    ("qqp", "test"): ("QQP/test.tsv", "id|question1|question2\n0|a|b", [("a", "b", None)]),
    ("mnli", "train"): ("MNLI/train.tsv", TRAIN_MNLI.replace(" ", "|") + "\n0|1|1n|t|(|(|(|(|a|b|neutral|neutral",
                        [("a", "b", "neutral")]),
    ("mnli", "validation_matched"): ("MNLI/dev_matched.tsv", DEV_MNLI.replace(" ", "|")
                                     + "\n0|1|1n|t|(|(|(|(|a|b|neutral|entailment|x|x|x|entailment",
                                     [("a", "b", "entailment")]),
    ("mnli", "validation_mismatched"): ("MNLI/dev_mismatched.tsv", DEV_MNLI.replace(" ", "|")
                                        + "\n0|1|1n|t|(|(|(|(|c|d|x|x|x|x|x|contradiction",
                                        [("c", "d", "contradiction")]),
    ("mnli", "test_matched"): ("MNLI/test_matched.tsv", f"{MNLI}sentence1 sentence2".replace(" ", "|")
                               + "\n0|1|1n|t|(|(|(|(|a|b", [("a", "b", None)]),
    ("qnli", "train"): ("QNLI/train.tsv", "index|question|sentence|label\n0|When?|Then.|not_entailment",
                        [("When?", "Then.", "not_entailment")]),
    ("rte", "train"): ("RTE/train.tsv", "index|sentence1|sentence2|label\n0|a|b|entailment",
                       [("a", "b", "entailment")]),
    ("wnli", "train"): ("WNLI/train.tsv", "index|sentence1|sentence2|label\n0|a|b|1\n1|c|d|0",
                        [("a", "b", "entailment"), ("c", "d", "not_entailment")]),
    ("ax", "test"): ("diagnostic/diagnostic.tsv", "index|sentence1|sentence2\n0|a|b", [("a", "b", None)]),
}  # fmt: skip


def contents(examples) -> list[tuple]:
    return [(example.text, example.pair, example.label) for example in examples]


@pytest.mark.parametrize(("task", "split"), FILES)
def test_the_files_of_each_task_are_read(write, tmp_path, task, split):
    name, content, expected = FILES[task, split]
    path = write(name, content.replace("|", "\t") + "\n")
    report = ReadReport("glue")
    examples = read_glue(task, split, tmp_path, report=report)
    assert contents(examples) == expected
    assert examples[-1].where == f"{path}:{content.count(chr(10)) + 1}"
    half = {"rows with another number of columns; the header has 6": Tally(1, f"{path}:3")}
    assert report.skipped == (half if (task, split) == ("qqp", "train") else {})
    assert report.used == len(examples)


def test_every_task_is_tested_above():
    assert {task for task, _ in FILES} == set(GLUE)


@pytest.mark.parametrize(
    ("task", "split", "labels", "expected"),
    [
        ("wnli", "train", [1, 0], ["entailment", "not_entailment"]),
        ("mrpc", "validation", [0, 1], ["not_equivalent", "equivalent"]),
        ("mnli", "validation_mismatched", [2, 0], ["contradiction", "entailment"]),
        ("cola", "test", [-1, -1], [None, None]),
        ("stsb", "train", [0.5, 5.0], [0.5, 5.0]),
        ("stsb", "test", [-1.0, -1.0], [None, None]),
    ],
)
def test_the_hub_gives_the_same_names(monkeypatch, task, split, labels, expected):
    text, pair, label = GLUE[task].columns
    classes = GLUE[task].labels
    features = datasets.Features(
        {name: datasets.Value("string") for name in (text, pair) if name}
        | {label: datasets.ClassLabel(names=list(classes)) if classes else datasets.Value("float32")}
    )
    values = {name: ["a", "b"] for name in (text, pair) if name} | {label: labels}
    hub = datasets.Dataset.from_dict(values, features=features)
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *name, split: asked.append((*name, split)) or hub)
    examples = read_glue(task, split)
    assert asked == [("nyu-mll/glue", task, split)]
    assert [example.label for example in examples] == expected
    assert [example.pair for example in examples] == (["a", "b"] if pair else [None, None])


def test_tasks_are_found_by_either_name():
    for task in GLUE.values():
        assert glue_task(task.name) is glue_task(task.config.upper()) is task
    with pytest.raises(ValueError, match="no GLUE task 'squad'; the tasks are cola, sst2, mrpc, stsb, qqp, mnli"):
        glue_task("squad")


def test_the_metrics_of_glue_are_computed():
    for task in GLUE.values():
        count = len(task.labels)
        labels = np.arange(6) % count if count else np.linspace(0, 5, 6)
        logits = np.random.default_rng(0).normal(size=(6, max(count, 1)))
        computed = PROBLEMS[task.problem_type].compute_metrics(logits, labels)
        assert set(task.metrics) <= computed.keys(), task.name


def test_errors_name_their_place(write, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match="MNLI has no split 'validation'; its splits are train, validation_matched, valid"
    ):
        read_glue("mnli", "validation", tmp_path)
    monkeypatch.setattr("datasets.load_dataset", Mock(side_effect=ConnectionError("no network")))
    monkeypatch.setattr("bert_jax.data.readers.sources.request_file", Mock(return_value=None))
    with pytest.raises(OSError, match=r"no network; `glue_folder=FOLDER` reads GLUE's own FOLDER/RTE/dev\.tsv"):
        read_glue("rte", "validation")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*RTE/dev\.tsv$"):
        read_glue("rte", "validation", tmp_path)


RTE = "index\tsentence1\tsentence2\tlabel\n"
STSB = "sentence1\tsentence2\tscore\n"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("RTE/dev.tsv", f"{RTE}0\ta\tb\tneutral\n", ":2: label 'neutral' is not one of entailment, not_entailment"),
        ("RTE/dev.tsv", f"{RTE}0\ta\tb\n", ":2: 3 columns, the header has 4"),
        ("RTE/dev.tsv", RTE, ": no rows"),
        ("STS-B/dev.tsv", f"{STSB}a\tb\t\n", ":2: label '' is not one of the numbers"),
    ],
)
def test_errors_in_a_file_name_their_line(file, content, message, write, tmp_path):
    write(file, content)
    with pytest.raises(ValueError, match=rf"dev\.tsv{message}"):
        read_glue(file.split("/")[0].replace("-", "").lower(), "validation", tmp_path)
