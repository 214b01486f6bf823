"""Bad input is refused in one line, before any work, and before the run's folder is made or replaced."""

import json

import pytest
import small_finetuning as small
from small_finetuning import finetune

from bert_jax.finetuning import make_settings
from bert_jax.finetuning.checks import check, check_model
from bert_jax.tasks.source import ModelSource

TEXTS, HEADER = "classification", "text\tlabel\n"
NOT_THERE = '{"question": "who ?", "context": "it", "answers": {"text": ["x"], "answer_start": [0]}}\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and data for every task."""
    return small.make_place(tmp_path_factory.mktemp("finetuning"))


@pytest.mark.parametrize(
    ("kind", "files", "flags", "message"),
    [
        (TEXTS, {"dev.tsv": HEADER + "a film\t2\n"}, [], r"dev\.tsv:2: label '2' is not one of 0, 1"),
        (TEXTS, {"dev.tsv": HEADER + "a film\t\n"}, [], r"dev\.tsv:2: no label in 'label', and none"),
        (TEXTS, {"dev.tsv": HEADER}, [], r"dev\.tsv: no rows"),
        (TEXTS, {"dev.tsv": "sentence1\tsentence2\tlabel\na\tb\t1\n"}, [],
         r"dev\.tsv:2 is a pair of texts, .*train\.tsv:2 is a single text"),
        (TEXTS, {"train.tsv": HEADER + "a\t1\nb\t1\n"}, [], r"needs at least two classes, got 1"),
        (TEXTS, {"train.tsv": HEADER + "a\t1\nb\t0\tc\n"}, [], r"train\.tsv:3: 3 columns, the header has 2"),
        (TEXTS, {"train.tsv": "words\tlabel\na\t1\n"}, [], r"There are words.* --no-header if these are"),
        (TEXTS, {"train.jsonl": '{"words": "a", "of": 1}\n'}, [], r"There are words, of; name it with --text-column$"),
        (TEXTS, {}, ["--label-column", "kind"], r"train\.tsv: no column 'kind' among text, label"),
        (TEXTS, {}, ["--train", "absent.tsv"], r"no such file: absent\.tsv"),
        (TEXTS, {}, ["--model", "/absent/model"], "/absent/model"),
        (TEXTS, {}, ["--max-length", "65"], "--max-length 65 exceeds the model's 64 positions"),
        (TEXTS, {}, ["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (TEXTS, {}, ["--seed", "-1"], "--seed must be at least 0, got -1"),
        (TEXTS, {}, ["--seed", "4294967296"], "--seed 4294967296 is too high"),
        (TEXTS, {}, ["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (TEXTS, {}, ["--learning-rate", "nan"], "--learning-rate must be above 0, got nan"),
        (TEXTS, {}, ["--decay-share", "0.2"], "--decay-share is only used with --schedule warmup-stable-decay"),
        (TEXTS, {}, ["--decay-share", "0"], "--decay-share must be above 0, got 0"),
        (TEXTS, {}, ["--decay-share", "1.5"], "--decay-share must be at most 1, got 1.5"),
        (TEXTS, {}, ["--schedule", "warmup-stable-decay", "--warmup-share", "0.5", "--decay-share", "0.7"],
         "--warmup-share 0.5 and --decay-share 0.7 are more than 1 together"),
        (TEXTS, {}, ["--dropout", "1"], r"--dropout must be in \[0, 1\), got 1"),
        (TEXTS, {}, ["--attention", "cudnn"], "--attention cudnn needs a GPU, the run is for a CPU"),
        (TEXTS, {}, ["--attention", "pallas", "--dropout", "0.1", "--random-bits", "rbg"],
         "--attention pallas has dropout from --random-bits hashed only, got rbg"),
        (TEXTS, {}, ["--freeze", "3"], "--freeze 3: the model has 2 layers"),
        (TEXTS, {}, ["--freeze", "1", "--lora-rank", "2"], "--lora-rank cannot be combined with --freeze"),
        (TEXTS, {}, ["--from-scratch", "--lora-rank", "2"],
         "--from-scratch cannot be combined with --lora-rank: frozen weights would stay random"),
        (TEXTS, {}, ["--do", "evaluate"], "is a BertForPreTraining; --do evaluate needs a BertForSequenceC"),
        (TEXTS, {}, ["--sweep", "--resume"], "--sweep cannot be combined with --resume"),
        (TEXTS, {}, ["--resume", "--overwrite"], "--resume cannot be combined with --overwrite"),
        (TEXTS, {}, ["--sweep", "--sweep-epochs", "2", "2"],
         "--sweep-epochs needs one or more different values, got 2, 2"),
        (TEXTS, {}, ["--sweep", "--sweep-batch-sizes", "0"], "--sweep-batch-sizes must be above 0, got 0"),
        (TEXTS, {}, ["--label-separator", ""], "--label-separator must not be empty"),
        ("tokens", {}, ["--overlap", "-1"], "--overlap must be at least 0, got -1"),
        ("squad", {}, ["--max-length", "15"], "--max-length 15 leaves no room for a context next to --max-question-le"),
        ("squad", {}, ["--n-best", "0"], "--n-best must be at least 1, got 0"),
        ("squad", {}, ["--null-threshold", "nan"], "--null-threshold must be a finite number, got nan"),
        ("squad", {}, ["--null-threshold", "-inf"], "--null-threshold must be a finite number, got -inf"),
        ("squad", {}, ["--max-answer-length", "0"], "--max-answer-length must be at least 1, got 0"),
        (TEXTS, {}, ["--parallel", "pmap", "--fsdp", "2"], "--parallel pmap splits only rows"),
        (TEXTS, {}, ["--tensor", "3"], "1 device cannot be divided into --fsdp 1 x --tensor 3"),
        (TEXTS, {}, ["--problem-type", "regression", "--class-weights", "balanced"],
         "is only used for single_label_classification, not for regression"),
        (TEXTS, {"train.jsonl": '{"text": "a", "label": [1, 2]}\n', "dev.jsonl": '{"text": "a", "label": 1}\n'},
         ["--problem-type", "regression"], r"dev\.jsonl:1: expected 2 scores per text, got 1"),
        ("tokens", {"dev.conll": "anna\tB-person\nfilm\n"}, [], r"dev\.conll:2: 'film' is not a word and its tag"),
        ("tokens", {"dev.conll": "anna\tB-city\n"}, [], r"dev\.conll:1: tag 'B-city' is not one of B-per"),
        ("tokens", {"dev.conll": "anna\n"}, [], r"dev\.conll:1: no tags"),
        ("squad", {"dev.json": '{"a": 1}'}, [], r"dev\.json: not SQuAD: no 'data' in a"),
        ("squad", {"dev.json": "question"}, [], r"dev\.json:1: not JSON"),
        ("squad", {"dev.jsonl": '{"question": "who ?", "context": "anna"}\n'}, [],
         r"dev\.jsonl:1: question has no answers and is_impossible is not set"),
        ("squad", {"train.jsonl": NOT_THERE}, [], r"train\.jsonl:1: no answer is at its answer_start"),
        ("multiple-choice", {"dev.jsonl": '{"question": "a", "A": "b", "B": "c", "label": 1}\n'}, [],
         r"which columns hold the continuations .* name them with --choice-columns$"),
        ("multiple-choice", {"dev.jsonl": '{"question": "a", "choices": ["b", "c"], "label": 1}\n'}, [],
         "do not have the same number of choices"),
        ("multiple-choice", {"dev.jsonl": '{"question": "a", "choices": ["b", "c"], "label": 2}\n'}, [],
         r"dev\.jsonl:1: 'label' must be a number from 0 to 1 or a letter from A to B, got '2'"),
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


FILES = {"train": "t.tsv", "dev": "d.tsv"}
NOT_REVIEWS = "is only used with `train` and `dev`, not for the film reviews"
NOT_GLUE = "is not used with `glue`, which sets the data and the problem"
NOT_SWEEP = "is not used with `sweep`, which has its own values"
NOT_REGRESSION = "is only used for single_label_classification, not for regression"
NOT_TRAINING = "is only used for training, not with `do={}`"


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        (TEXTS, {"problem_type": "regression"}, f"`problem_type` {NOT_REVIEWS}"),
        (TEXTS, {"text_column": "a"}, f"`text_column` {NOT_REVIEWS}"),
        (TEXTS, {"encoding": "latin-1"}, f"`encoding` {NOT_REVIEWS}"),
        (TEXTS, {**FILES, "sweep_epochs": (2,)}, "`sweep_epochs` is only used with `sweep`"),
        (TEXTS, {"sweep": True, "learning_rate": 1e-3}, f"`learning_rate` {NOT_SWEEP}"),
        (TEXTS, {"sweep": True, "epochs": 1}, f"`epochs` {NOT_SWEEP}"),
        ("squad", {**FILES, "sweep": True, "epochs": 3}, f"`epochs` {NOT_SWEEP}"),
        (TEXTS, {"lora_alpha": 8.0}, "`lora_alpha` is only used with `lora_rank`"),
        (TEXTS, {"glue": "rte", "train": "t.tsv"}, f"`train` {NOT_GLUE}"),
        (TEXTS, {"glue": "rte", "header": False}, f"`header=False` {NOT_GLUE}"),
        (TEXTS, {"glue": "rte", "train_split": "a"}, f"`train_split` {NOT_GLUE}"),
        (TEXTS, {"glue": "rte", "dev_split": "a"}, f"`dev_split` {NOT_GLUE}"),
        (TEXTS, {"glue": "rte", "problem_type": "regression"}, f"`problem_type` {NOT_GLUE}"),
        (TEXTS, {"glue_folder": "x"}, "`glue_folder` is only used with `glue`"),
        (TEXTS, {"glue": "stsb", "class_weights": "balanced"}, f"`class_weights` {NOT_REGRESSION}"),
        (TEXTS, {"glue": "sts-b", "label_smoothing": 0.1}, f"`label_smoothing` {NOT_REGRESSION}"),
        (TEXTS, {**FILES, "label_separator": "|"},
         "`label_separator` is only used with `problem_type=multi_label_classification`"),
        *(
            (task, {"do": "predict", "dev": "d", "mistakes": 3},
             "`mistakes` is only used if labels are known, not with `do=predict`")
            for task in small.ENDS
        ),
        *(
            (task, {"do": do, "dev": "d", name: value}, f"`{name}` {NOT_TRAINING.format(do)}")
            for do in ("evaluate", "predict")
            for task, name, value in (
                (TEXTS, "resume", True), (TEXTS, "seeds", 2), (TEXTS, "train", "t.tsv"), (TEXTS, "epochs", 1),
                (TEXTS, "lora_rank", 2), ("tokens", "freeze", 1), ("tokens", "label_smoothing", 0.1),
                ("squad", "patience", 2), ("multiple-choice", "seed", 1), (TEXTS, "log_every", 3),
            )
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_setting_without_effect_is_refused(task, fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check(make_settings(task, model="m", **fields))


@pytest.mark.parametrize("task", small.ENDS)
def test_predicting_needs_data(task):
    with pytest.raises(ValueError, match=r"^`dev`: a file or a dataset to predict is needed$"):
        check(make_settings(task, model="m", do="predict"))


@pytest.mark.parametrize("task", small.ENDS)
def test_settings_with_an_effect_pass(task):
    inference = {"batch_size": 4, "pack": False, "dtype": "bfloat16", "max_length": 99, "quiet": True}
    for fields in (
        {"do": "predict", "dev": "d", **inference},
        {"do": "evaluate", "dev": "d", **inference, "mistakes": 3},
        {**FILES, **inference, "mistakes": 3, "lora_rank": 2, "lora_alpha": 8.0, "log_every": 3},
        {**FILES, "sweep": True, "sweep_epochs": (1,), "seeds": 2},
    ):
        check(make_settings(task, model="m", **fields))


@pytest.mark.parametrize("do", ["train", "predict"])
def test_sinusoidal_positions_reach_as_far_as_the_table_they_are_saved_as(place, tmp_path, do):
    head = "BertForSequenceClassification"
    model = small.make_model(tmp_path / "model", head)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"position_embedding_type": "sinusoidal"}))
    flags = ["--do", do, *(["--train", place / "train.tsv"] if do == "train" else [])]
    with pytest.raises(ValueError, match="--max-length 65 exceeds the model's 64 positions"):
        finetune(TEXTS, tmp_path / "run", "--model", model, "--dev", place / "dev.tsv", "--max-length", "65", *flags)


def test_a_model_without_vocabulary_or_with_one_token_type_is_refused(place, tmp_path):
    def begin(kind, end):
        data = ["--train", place / f"train{end}", "--dev", place / f"dev{end}"]
        finetune(kind, tmp_path / "run", "--model", tmp_path / "model", *data, "--max-length", "32")

    small.make_model(tmp_path / "model", type_vocab_size=1)
    with pytest.raises(ValueError, match="one token type: it cannot distinguish the two texts of a pair"):
        begin("multiple-choice", ".jsonl")
    for name in ("vocab.txt", "tokenizer.json"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(ValueError, match=r"neither tokenizer\.json nor vocab\.txt nor vocab\.json"):
        begin("classification", ".tsv")


def test_devices_must_divide_the_heads(place):
    settings = make_settings(TEXTS, model="m", max_length=32, tensor=2)
    with pytest.raises(ValueError, match=r"^`tensor=2` does not divide the model's 3 heads$"):
        check_model(settings, ModelSource.find(str(place / "model")))
