"""What finetune.py says to bad input: one line, before any work, and before the run's folder is made or replaced."""

import json

import pytest
import small_finetuning as small
from small_finetuning import finetune

from bert_jax import models
from bert_jax.finetuning.checks import check, check_model
from bert_jax.finetuning.settings import read_settings
from bert_jax.interop.huggingface import read_config

TEXTS, HEADER = "classification", "text\tlabel\n"
NOT_THERE = '{"question": "who ?", "context": "it", "answers": {"text": ["x"], "answer_start": [0]}}\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and data of every kind."""
    return small.make_place(tmp_path_factory.mktemp("finetuning"))


@pytest.mark.parametrize(
    ("kind", "files", "flags", "message"),
    [
        (TEXTS, {"dev.tsv": HEADER + "a film\t2\n"}, [], r"dev\.tsv:2: the label '2' is none of 0, 1"),
        (TEXTS, {"dev.tsv": HEADER + "a film\t\n"}, [], r"dev\.tsv:2: no label \(--label-column names its column\)"),
        (TEXTS, {"dev.tsv": HEADER}, [], r"dev\.tsv: no rows"),
        (TEXTS, {"dev.tsv": "sentence1\tsentence2\tlabel\na\tb\t1\n"}, [],
         r"dev\.tsv:2 is a pair of texts, .*train\.tsv:2 is a single one"),
        (TEXTS, {"train.tsv": HEADER + "a\t1\nb\t1\n"}, [], r"wanted two classes or more, found 1"),
        (TEXTS, {"train.tsv": HEADER + "a\t1\nb\t0\tc\n"}, [], r"train\.tsv:3: 3 columns, the header has 2"),
        (TEXTS, {"train.tsv": "words\tlabel\na\t1\n"}, [], r"holds the text\? There are words.* --no-header if these"),
        (TEXTS, {"train.jsonl": '{"words": "a", "of": 1}\n'}, [], r"There are words, of; name it with --text-column$"),
        (TEXTS, {}, ["--label-column", "kind"], r"train\.tsv: no column 'kind' among text, label"),
        (TEXTS, {}, ["--train", "absent.tsv"], r"no such file: absent\.tsv"),
        (TEXTS, {}, ["--model", "/absent/model"], "/absent/model"),
        (TEXTS, {}, ["--max-length", "65"], "--max-length 65 is beyond the model's 64 positions"),
        (TEXTS, {}, ["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (TEXTS, {}, ["--seed", "-1"], "--seed must be at least 0, got -1"),
        (TEXTS, {}, ["--seed", "4294967296"], "--seed 4294967296 is too high"),
        (TEXTS, {}, ["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (TEXTS, {}, ["--learning-rate", "nan"], "--learning-rate must be above 0, got nan"),
        (TEXTS, {}, ["--dropout", "1"], r"--dropout must lie in \[0, 1\), got 1"),
        (TEXTS, {}, ["--attention", "cudnn"], "attention cudnn: is for GPUs, this is a cpu"),
        (TEXTS, {}, ["--attention", "pallas", "--dropout", "0.1"], "attention pallas: has no dropout of attention w"),
        (TEXTS, {}, ["--freeze", "3"], "--freeze 3: the model has 2 layers"),
        (TEXTS, {}, ["--freeze", "1", "--lora-rank", "2"], "--freeze says nothing more"),
        (TEXTS, {}, ["--from-scratch", "--lora-rank", "2"], "--from-scratch has nothing learned"),
        (TEXTS, {}, ["--do", "evaluate"], "is a BertForPreTraining; --do evaluate needs a BertForSequenceC"),
        (TEXTS, {}, ["--sweep", "--resume"], "--sweep trains anew"),
        (TEXTS, {}, ["--resume", "--overwrite"], "--resume goes on with the run that --overwrite would replace"),
        (TEXTS, {}, ["--sweep", "--sweep-epochs", "2", "2"], "--sweep-epochs wants one value or more, each on"),
        (TEXTS, {}, ["--sweep", "--sweep-batch-sizes", "0"], "--sweep-batch-sizes must be above 0, got 0"),
        (TEXTS, {}, ["--label-separator", ""], "--label-separator must not be empty"),
        ("tokens", {}, ["--overlap", "-1"], "--overlap must be at least 0, got -1"),
        ("squad", {}, ["--max-length", "15"], "--max-length 15 leaves no room for a context beside --max-question-le"),
        ("squad", {}, ["--n-best", "0"], "--n-best must be at least 1, got 0"),
        ("squad", {}, ["--null-threshold", "nan"], "--null-threshold must be a finite number, got nan"),
        ("squad", {}, ["--null-threshold", "-inf"], "--null-threshold must be a finite number, got -inf"),
        ("squad", {}, ["--max-answer-length", "0"], "--max-answer-length must be at least 1, got 0"),
        (TEXTS, {}, ["--parallel", "pmap", "--fsdp", "2"], "pmap splits nothing but rows"),
        (TEXTS, {}, ["--tensor", "3"], "1 devices cannot be divided into fsdp 1 x tensor 3"),
        (TEXTS, {}, ["--problem-type", "regression", "--class-weights", "balanced"], "is for single labels"),
        (TEXTS, {"train.jsonl": '{"text": "a", "label": [1, 2]}\n', "dev.jsonl": '{"text": "a", "label": 1}\n'},
         ["--problem-type", "regression"], r"dev\.jsonl:1: wanted 2 score\(s\) a text, found 1"),
        ("tokens", {"dev.conll": "anna\tB-person\nfilm\n"}, [], r"dev\.conll:2: 'film' is not a word and its tag"),
        ("tokens", {"dev.conll": "anna\tB-city\n"}, [], r"dev\.conll:1: the tag 'B-city' is none of B-per"),
        ("tokens", {"dev.conll": "anna\n"}, [], r"dev\.conll:1: no tags"),
        ("squad", {"dev.json": '{"a": 1}'}, [], r"dev\.json: not SQuAD: no 'data' in a"),
        ("squad", {"dev.json": "question"}, [], r"dev\.json:1: not JSON"),
        ("squad", {"dev.jsonl": '{"question": "who ?", "context": "anna"}\n'}, [], r"dev\.jsonl:1: no answer"),
        ("squad", {"train.jsonl": NOT_THERE}, [], r"train\.jsonl:1: no answer is where it is said to be"),
        ("multiple-choice", {"dev.jsonl": '{"question": "a", "A": "b", "B": "c", "label": 1}\n'}, [],
         r"which columns hold the continuations .* name them with --choice-columns$"),
        ("multiple-choice", {"dev.jsonl": '{"question": "a", "choices": ["b", "c"], "label": 1}\n'}, [],
         "do not have the same number of choices"),
        ("multiple-choice", {"dev.jsonl": '{"question": "a", "choices": ["b", "c"], "label": 2}\n'}, [],
         r"dev\.jsonl:1: 'label' is not a number from 0 to 1 or a letter from A to B but '2'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_refused_in_one_line_before_the_folder_is_made(
    place, write, tmp_path, kind, files, flags, message
):
    end = small.ENDS[kind]
    chosen = {part: place / f"{part}{end}" for part in ("train", "dev")}
    chosen |= {name.split(".")[0]: write(name, content) for name, content in files.items()}
    length = ["--max-length", "48", "--max-question-length", "12"] if kind == "squad" else ["--max-length", "32"]
    start = ["--model", place / "model", "--dev", chosen["dev"]]
    start += [] if "--do" in flags else ["--train", chosen["train"]]
    with pytest.raises((ValueError, OSError), match=message) as caught:
        finetune(kind, tmp_path / "run", *start, *length, *flags)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


FILES, GLUE = ["--train", "t.tsv", "--dev", "d.tsv"], ["--glue", "rte"]
NOT_REVIEWS = "for --train and --dev, not for the film reviews"
NOT_GLUE, NOT_SWEEP = "not for --glue, which names data and problem", "not for --sweep, which has flags of its own"
NOT_SCORES = "for single labels, not for regression"
SEPARATOR = "--label-separator is for --problem-type multi_label_classification"


@pytest.mark.parametrize(
    ("kind", "flags", "message"),
    [
        (TEXTS, ["--problem-type", "regression"], f"--problem-type is {NOT_REVIEWS}"),
        (TEXTS, ["--text-column", "a"], f"--text-column is {NOT_REVIEWS}"),
        (TEXTS, ["--encoding", "latin-1"], f"--encoding is {NOT_REVIEWS}"),
        (TEXTS, [*FILES, "--sweep-epochs", "2"], "--sweep-epochs is for --sweep"),
        (TEXTS, ["--sweep", "--learning-rate", "1e-3"], f"--learning-rate is {NOT_SWEEP}"),
        (TEXTS, ["--sweep", "--epochs", "1"], f"--epochs is {NOT_SWEEP}"),
        ("squad", [*FILES, "--sweep", "--epochs", "3"], f"--epochs is {NOT_SWEEP}"),
        (TEXTS, ["--lora-alpha", "8"], "--lora-alpha is for --lora-rank"),
        (TEXTS, [*GLUE, "--train", "t.tsv"], f"--train is {NOT_GLUE}"),
        (TEXTS, [*GLUE, "--no-header"], f"--no-header is {NOT_GLUE}"),
        (TEXTS, [*GLUE, "--train-split", "a"], f"--train-split is {NOT_GLUE}"),
        (TEXTS, [*GLUE, "--dev-split", "a"], f"--dev-split is {NOT_GLUE}"),
        (TEXTS, [*GLUE, "--problem-type", "regression"], f"--problem-type is {NOT_GLUE}"),
        (TEXTS, ["--glue-folder", "x"], "--glue-folder is for --glue"),
        (TEXTS, ["--glue", "stsb", "--class-weights", "balanced"], f"--class-weights is {NOT_SCORES}"),
        (TEXTS, ["--glue", "sts-b", "--label-smoothing", "0.1"], f"--label-smoothing is {NOT_SCORES}"),
        *(
            (kind, ["--do", "predict", "--dev", "d", "--mistakes", "3"], "--mistakes is for what is known, not for .*")
            for kind in small.ENDS
        ),
        (TEXTS, [*FILES, "--label-separator", "|"], SEPARATOR),
        *(
            (kind, ["--do", do, "--dev", "d", *flags], f"{flags[0]} is for training, not for --do {do}")
            for do in ("evaluate", "predict")
            for kind, flags in (
                (TEXTS, ["--resume"]), (TEXTS, ["--seeds", "2"]), (TEXTS, ["--train", "t.tsv"]),
                (TEXTS, ["--epochs", "1"]), (TEXTS, ["--lora-rank", "2"]),
                ("tokens", ["--freeze", "1"]), ("tokens", ["--label-smoothing", "0.1"]),
                ("squad", ["--patience", "2"]), ("multiple-choice", ["--seed", "1"]), (TEXTS, ["--log-every", "3"]),
            )
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_flag_that_nothing_reads_is_refused(kind, flags, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check(read_settings([kind, "--model", "m", *flags], description=""))


@pytest.mark.parametrize("kind", small.ENDS)
def test_what_is_to_be_predicted_must_be_said(kind):
    with pytest.raises(ValueError, match=r"^--dev: a file or a dataset to predict is needed$"):
        check(read_settings([kind, "--model", "m", "--do", "predict"], description=""))


@pytest.mark.parametrize("kind", small.ENDS)
def test_flags_that_are_read_pass(kind):
    answering = ["--batch-size", "4", "--no-pack", "--dtype", "bfloat16", "--max-length", "99", "--quiet"]
    for flags in (
        ["--do", "predict", "--dev", "d", *answering],
        ["--do", "evaluate", "--dev", "d", *answering, "--mistakes", "3"],
        [*FILES, *answering, "--mistakes", "3", "--lora-rank", "2", "--lora-alpha", "8", "--log-every", "3"],
        [*FILES, "--sweep", "--sweep-epochs", "1", "--seeds", "2"],
    ):
        check(read_settings([kind, "--model", "m", *flags], description=""))


@pytest.mark.parametrize("do", ["train", "predict"])
def test_sinusoids_reach_no_further_than_the_table_they_are_written_as(place, tmp_path, do):
    head = "BertForSequenceClassification"
    model = small.make_model(tmp_path / "model", head)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"position_embedding_type": "sinusoidal"}))
    flags = ["--do", do, *(["--train", place / "train.tsv"] if do == "train" else [])]
    with pytest.raises(ValueError, match="--max-length 65 is beyond the model's 64 positions"):
        finetune(TEXTS, tmp_path / "run", "--model", model, "--dev", place / "dev.tsv", "--max-length", "65", *flags)


def test_a_model_without_vocabulary_or_with_one_token_type_is_refused(place, tmp_path):
    def begin(kind, end):
        data = ["--train", place / f"train{end}", "--dev", place / f"dev{end}"]
        finetune(kind, tmp_path / "run", "--model", tmp_path / "model", *data, "--max-length", "32")

    small.make_model(tmp_path / "model", type_vocab_size=1)
    with pytest.raises(ValueError, match="one token type: it cannot tell the texts of a pair apart"):
        begin("multiple-choice", ".jsonl")
    for name in ("vocab.txt", "tokenizer.json"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(ValueError, match=r"no vocabulary here; wanted tokenizer\.json or vocab\.txt"):
        begin("classification", ".tsv")


def test_devices_must_divide_the_heads(place):
    asked = read_settings([TEXTS, "--model", "m", "--max-length", "32", "--tensor", "2"], description="")
    config = read_config(place / "model")[0]
    with pytest.raises(ValueError, match=r"^--tensor 2 does not divide the model's 3 heads$"):
        check_model(asked, place / "model", config, None, models.BertForSequenceClassification)
