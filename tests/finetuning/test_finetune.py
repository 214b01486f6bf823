"""The fine-tuning program: each task, the files of a run, resuming, and refusals to replace a run."""

import json
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import jax
import numpy as np
import pytest
import small_finetuning as small
from safetensors.numpy import load_file
from small_finetuning import finetune
from small_trackers import Recorder, recorded_tracker

import bert_jax
from bert_jax import finetuning
from bert_jax.metrics.entities import find_entities
from bert_jax.pipelines import MultipleChoice, QuestionAnswerer, TextClassifier, TokenClassifier
from bert_jax.tasks.source import ModelSource
from bert_jax.training.loop import Milestones
from bert_jax.training.runs.contents import clear_run
from bert_jax.training.runs.interruption import Interrupted
from bert_jax.training.runs.lock import RunInUse
from bert_jax.training.runs.reporting import Reporter

pytestmark = pytest.mark.slow

SAME_IN_FLOAT32, SAME_AFTER_STEPS = 2e-5, 1e-3
SHORT = ["--max-length", "32", "--batch-size", "16", "--epochs", "4", "--learning-rate", "2e-2", "--no-pack"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and data for every task."""
    return small.make_place(tmp_path_factory.mktemp("finetuning"))


@pytest.fixture(scope="module")
def run(place):
    """Runs a task in a folder of this name."""

    def run(kind, name, *flags, on=1, model="model", data=None):
        end = data or small.ENDS[kind]
        read = ["--train", place / f"train{end}"] if "--do" not in flags else []
        chosen = ["--model", place / model, *read, "--dev", place / f"dev{end}"]
        return finetune(kind, place / name, *chosen, *flags, on=on)

    return run


@pytest.fixture(scope="module")
def reviewed(run):
    """A run on reviews, one per row, in a tracker."""
    with recorded_tracker():
        return run("classification", "reviewed", *SHORT, "--track", "trackio")


def tensors(run):
    return load_file(run / "model.safetensors")


def assert_same_tensors(one, two, tolerance=0.0):
    one, two = tensors(one), tensors(two)
    assert one.keys() == two.keys()
    for name in one:
        if tolerance and name.endswith("key.bias"):
            continue  # it changes no softmax: its gradient is a rounding error, of which Adam makes full steps
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=tolerance, err_msg=name)


def without_clock(rows):
    return [{name: x for name, x in row.items() if name != "tokens_per_second"} for row in rows]


def test_a_run_leaves_a_model_with_its_labels_and_scores(reviewed, place):
    names = {path.name for path in reviewed.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "training.json", "tokenizer.json", "vocab.txt", "metrics.jsonl",
        "tensorboard", "curves.png", "confusion.png", "mistakes.md", "predictions.jsonl", "scores.json", "checkpoints",
        "data.json",
    }  # fmt: skip
    assert json.loads((reviewed / "config.json").read_text())["id2label"] == {"0": "0", "1": "1"}
    assert json.loads((reviewed / "tokenizer_config.json").read_text())["model_max_length"] == 32
    assert TextClassifier.load(reviewed).max_length == 32
    evaluations = [row for row in small.rows(reviewed) if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [3, 6, 9, 12]  # once per epoch
    assert evaluations[0].keys() > {"eval_accuracy", "eval_f1", "eval_matthews", "eval_collapsed"}
    best = max(row["eval_accuracy"] for row in evaluations)
    assert json.loads((reviewed / "scores.json").read_text())["accuracy"] == pytest.approx(best)
    assert len(small.rows(reviewed)) == 16


def test_a_tracker_gets_the_rows_the_pictures_and_the_scores_of_the_final_model(reviewed):
    (tracked,) = (run for run in Recorder.runs if run.folder == reviewed)
    assert tracked.config["task"] == {"name": "classification"}
    assert [step for step, row in tracked.rows if "eval/accuracy" in row] == [3, 6, 9, 12]
    scores = json.loads((reviewed / "scores.json").read_text())
    assert tracked.rows[-1] == (12, {f"final/{name}": value for name, value in scores.items()})
    assert tracked.pictures == ["curves.png", "confusion.png"]
    assert tracked.failed is False


def test_finetune_is_a_function_that_leaves_the_process_as_it_was(place):
    """Called from a thread, as by a server: signals cannot be handled there, and JAX's settings stay the caller's."""
    files = {"model": str(place / "model"), "dev": str(place / "dev.tsv"), "output": str(place / "function")}
    predicting = finetuning.make_settings("classification", **files, max_length=32, do="predict", overwrite=True)
    settings = finetuning.make_settings(
        "classification",
        **files,
        train=str(place / "train.tsv"),
        max_length=32,
        batch_size=16,
        learning_rate=2e-2,
        epochs=4,
        pack=False,
        quiet=True,
    )
    cache = jax.config.jax_compilation_cache_dir
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with small.devices(1), ThreadPoolExecutor(1) as pool:
        run = pool.submit(finetuning.finetune, settings).result()
        assert run.folder == place / "function"
        assert run.metrics == json.loads((run.folder / "scores.json").read_text())
        assert run.model.config.label_names == ("0", "1")
        with pytest.raises(FileExistsError, match="holds a run already"):
            finetuning.finetune(settings)
        with pytest.raises(FileExistsError, match="holds a training run, which `do=predict` would replace"):
            finetuning.finetune(predicting)
    assert jax.config.jax_compilation_cache_dir == cache
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_predictions_are_in_the_order_of_the_file_and_those_of_the_pipeline(reviewed, place):
    lines = (place / "dev.tsv").read_text().splitlines()[1:]
    found = small.predictions(reviewed)
    assert [f"{one['text']}\t{one['gold']}" for one in found] == lines
    classify = TextClassifier.load(reviewed)
    for one in found:
        answer = classify(one["text"])
        assert answer["label"] == one["label"]
        assert answer["score"] == pytest.approx(one["score"], abs=SAME_IN_FLOAT32)
        assert sum(one["probabilities"].values()) == pytest.approx(1)


def test_evaluating_repeats_the_scores_of_training(reviewed, run, place):
    again = run("classification", "again", "--do", "evaluate", model="reviewed")  # with the --max-length of training
    assert json.loads((again / "training.json").read_text())["settings"]["data"]["max_length"] == 32
    want, got = (json.loads((folder / "scores.json").read_text()) for folder in (reviewed, again))
    assert got == pytest.approx(want, abs=SAME_IN_FLOAT32)


@pytest.mark.parametrize("do", ["evaluate", "predict"])
def test_results_are_written_before_they_are_printed(do, reviewed, run, place, monkeypatch):
    """A screen may be unable to show a text of the data."""

    def fail(*_):
        raise UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range")

    monkeypatch.setattr(finetuning.program, "describe_splits", lambda _: [])  # printed before the results
    monkeypatch.setattr(finetuning.program, "print", fail, raising=False)
    with pytest.raises(UnicodeEncodeError):
        run("classification", f"unseen {do}", "--do", do, model="reviewed")
    written = {path.name for path in (place / f"unseen {do}").iterdir()}
    with_labels = {"scores.json", "confusion.png", "mistakes.md"}
    assert "predictions.jsonl" in written
    assert written & with_labels == (with_labels if do == "evaluate" else set())


DROPOUT = ["--dropout", "0.1"]


@pytest.fixture(scope="module")
def twins(run):
    """Two seeds together, with dropout."""
    return run("classification", "twins", *SHORT, *DROPOUT, "--seeds", "2", "--seed", "4")


def test_each_seed_has_its_metrics_and_the_best_is_kept(twins):
    rows = [row for row in small.rows(twins) if "eval_loss" in row]
    assert [(row["step"], row["seed"]) for row in rows[:4]] == [(3, 4), (3, 5), (6, 4), (6, 5)]
    assert rows[0]["eval_loss"] != rows[1]["eval_loss"]
    best = {seed: max(row["eval_accuracy"] for row in rows if row["seed"] == seed) for seed in (4, 5)}
    winner = max(best, key=lambda seed: best[seed])
    assert_same_tensors(twins, twins / "seeds" / str(winner))
    assert {path.name for path in (twins / "seeds").iterdir()} == {"4", "5"}


def test_a_seed_learns_what_it_learns_alone(twins, run):
    alone = run("classification", "alone", *SHORT, *DROPOUT, "--seed", "5")
    assert_same_tensors(alone, twins / "seeds" / "5", SAME_AFTER_STEPS)
    together = [row for row in small.rows(twins) if row["seed"] == 5 and "loss" in row]
    for one, other in zip([row for row in small.rows(alone) if "loss" in row], together, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=SAME_AFTER_STEPS)
    masked = run("classification", "masked", *SHORT, *DROPOUT, "--seed", "5", "--epochs", "1", "--random-bits", "rbg")
    assert small.rows(masked)[0]["loss"] != together[0]["loss"]


def test_a_run_that_was_killed_and_interrupted_resumes_bitwise(twins, run, monkeypatch):
    done = 0

    def advance(self):
        nonlocal done
        done += 1
        if done == 5:
            raise MemoryError
        if done == 6:  # the first step after the checkpoint of step 3
            signal.raise_signal(signal.SIGTERM)

    reach = Milestones.reach

    def interrupted_at_the_sixth(self, state, step):
        self.session.interruption.received = signal.SIGTERM if step == 6 else None
        return reach(self, state, step)

    flags = [*SHORT, *DROPOUT, "--seeds", "2", "--seed", "4"]
    monkeypatch.setattr(Reporter, "advance", advance)
    with pytest.raises(MemoryError):
        run("classification", "killed", *flags)
    with pytest.raises(Interrupted) as caught:
        run("classification", "killed", *flags, "--resume")
    assert caught.value.step % 3  # between two evaluations
    with (
        monkeypatch.context() as patch
    ):  # at an evaluation, which is left to the resumed run; that one is killed after it
        patch.setattr(Milestones, "reach", interrupted_at_the_sixth)
        with pytest.raises(Interrupted, match="saved at step 6"):
            run("classification", "killed", *flags, "--resume")
    done = 4
    with pytest.raises(MemoryError):
        run("classification", "killed", *flags, "--resume")
    done = 6
    killed = run("classification", "killed", *flags, "--resume")
    for folder in (".", "seeds/4", "seeds/5"):
        assert_same_tensors(killed / folder, twins / folder)
    assert without_clock(small.rows(killed)) == without_clock(small.rows(twins))
    assert small.predictions(killed) == small.predictions(twins)


def test_a_run_with_a_damaged_newest_checkpoint_resumes_bitwise_from_the_one_before(twins, place, capsys):
    damaged = shutil.copytree(twins, place / "damaged")
    assert {path.name for path in (damaged / "checkpoints").iterdir()} >= {"9", "12"}
    largest = max((damaged / "checkpoints" / "12" / "state").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(bytes(largest.stat().st_size))
    finetune("classification", damaged, "--resume")
    said = capsys.readouterr().out
    assert "moved to" in said
    assert "resuming from step 9 of 12" in said
    for folder in (".", "seeds/4", "seeds/5"):
        assert_same_tensors(damaged / folder, twins / folder)
    assert without_clock(small.rows(damaged)) == without_clock(small.rows(twins))
    assert json.loads((damaged / "best.json").read_text()) == json.loads((twins / "best.json").read_text())


def test_a_run_resumes_only_with_its_own_settings_and_data(twins, place):
    finetune(
        "classification", twins, "--resume", "--accumulate", "2"
    )  # already finished; the other settings are in training.json
    with pytest.raises(ValueError, match=r"began with learning_rate 0\.02, now learning_rate is 0\.5"):
        finetune("classification", twins, "--resume", "--learning-rate", "0.5")
    data = (place / "train.tsv").read_text()
    (place / "train.tsv").write_text(data.replace("lovely", "dull"))
    try:
        with pytest.raises(ValueError, match="began with contents of the training data"):
            finetune("classification", twins, "--resume")
    finally:
        (place / "train.tsv").write_text(data)
    data = (place / "dev.tsv").read_text()
    (place / "dev.tsv").write_text(data.rpartition("\n")[0].rpartition("\n")[0] + "\n")
    try:
        with pytest.raises(ValueError, match="began with contents of the held-out data"):
            finetune("classification", twins, "--resume")
    finally:
        (place / "dev.tsv").write_text(data)


def test_a_run_resumes_with_the_same_model_and_data_under_other_names(twins, place, tmp_path, monkeypatch):
    for name in ("train.tsv", "dev.tsv"):
        shutil.copy(place / name, tmp_path)
    shutil.copytree(place / "model", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    files = ["--train", "train.tsv", "--dev", tmp_path / "dev.tsv", "--model", "model"]
    finetune("classification", twins, "--resume", *files)
    changed = {name: tensor * 2 for name, tensor in tensors(tmp_path / "model").items()}
    small.save(tmp_path / "model", changed)
    with pytest.raises(ValueError, match="began with contents of the model"):
        finetune("classification", twins, "--resume", *files)


def test_a_second_process_is_refused_before_any_work(run, place, monkeypatch):
    def find(name, **_):
        with pytest.raises(RunInUse, match=r"used is in use by process \d+ on .* choose another --output"):
            run("classification", "used")
        raise ValueError("the first process ends")

    monkeypatch.setattr(ModelSource, "find", find)
    for flags in ([], ["--do", "predict"]):
        with pytest.raises(ValueError, match="the first process ends"):
            run("classification", "used", *flags)
    assert not (place / "used").exists()


def test_overwriting_removes_all_that_a_run_left(reviewed, twins, place, tmp_path):
    """Also that of the runs of other tests that are there already."""
    for number, record in enumerate(sorted(place.glob("*/training.json"))):
        copied = shutil.copytree(record.parent, tmp_path / str(number))
        clear_run(copied)
        assert [path.name for path in copied.iterdir()] == ["training.json"], record.parent


def test_no_input_may_be_in_the_folder_of_the_run(reviewed, run, place):
    (reviewed / "more.tsv").write_bytes((place / "dev.tsv").read_bytes())
    with pytest.raises(ValueError, match=r"--train: .*more\.tsv is in --output, the folder of the run"):
        run("classification", "reviewed", *SHORT, "--overwrite", "--train", reviewed / "more.tsv")
    (reviewed / "more.tsv").unlink()
    assert (reviewed / "model.safetensors").exists()


def test_devices_packing_accumulation_and_kernels_change_no_parameter(reviewed, run, capsys):
    mesh = run("classification", "mesh", *SHORT, "--pack", on=8)
    capsys.readouterr()
    pmap = run("classification", "pmap", *SHORT, "--parallel", "pmap", "--accumulate", "2", on=8)
    compiled = re.findall("compiled for rows x tokens: (.*); (.*)", capsys.readouterr().out)[0]
    training, evaluation = (set(re.findall(r"(\d+) x", shapes)) for shapes in compiled)
    assert (training, evaluation) == ({"16"}, {"8"})  # an evaluation has the rows of a micro-batch at once
    kernel = run("classification", "kernel", *SHORT, "--attention", "pallas")
    for other in (mesh, pmap, kernel):
        assert_same_tensors(reviewed, other, SAME_AFTER_STEPS)
        for one, two in zip(small.rows(reviewed), small.rows(other), strict=True):
            assert one.keys() == two.keys()
            name = "loss" if "loss" in one else "eval_loss"
            assert one[name] == pytest.approx(two[name], abs=SAME_AFTER_STEPS)
    got, want = small.predictions(mesh), small.predictions(reviewed)
    assert [one["probabilities"]["1"] for one in got] == pytest.approx(
        [one["probabilities"]["1"] for one in want], abs=SAME_AFTER_STEPS
    )


def test_adapters_change_only_kernels_and_are_merged(run, place, capsys):
    flags = ["--lora-rank", "2", "--patience", "1", "--eval-every", "1", "--warmup-share", "0"]
    run_with = run("classification", "adapters", *SHORT, *flags, "--epochs", "9")
    before, after = tensors(place / "model"), tensors(run_with)
    changed = {name for name in after if name in before and (before[name] != after[name]).any()}
    kernels = {name for name in before if ".layer." in name and name.endswith("weight") and "Norm" not in name}
    assert changed == kernels | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert "lora_rank" not in json.loads((run_with / "config.json").read_text())
    evaluations = [row for row in small.rows(run_with) if "eval_loss" in row]
    scores = [row["eval_accuracy"] for row in evaluations]
    assert len(scores) < 27  # it stopped early, after one evaluation without improvement
    assert (
        f"stopped early after step {len(scores)} of 27: accuracy did not improve in 1 evaluation"
        in capsys.readouterr().out
    )
    assert [later > earlier for earlier, later in pairwise(scores)] == [True] * (len(scores) - 2) + [False]
    assert json.loads((run_with / "scores.json").read_text())["accuracy"] == pytest.approx(max(scores))
    finetune("classification", run_with, "--resume")  # already finished
    assert [row for row in small.rows(run_with) if "eval_loss" in row] == evaluations


def test_frozen_layers_do_not_change_in_bfloat16(run, place):
    frozen = run("classification", "frozen", *SHORT, "--freeze", "1", "--dtype", "bfloat16", "--weight-decay", "0.5",
                 "--layer-decay", "0.5", "--label-smoothing", "0.1", "--class-weights", "balanced")  # fmt: skip
    before, after = tensors(place / "model"), tensors(frozen)
    for name, values in before.items():
        if name in after:
            still = "embeddings" in name or ".layer.0." in name
            assert (values == after[name]).all() == still, name
    assert json.loads((frozen / "config.json").read_text())["dtype"] == "float32"


def test_tags_are_those_of_the_pipeline(run, place):
    tagged = run("tokens", "tagged", *SHORT, "--pack", "--max-length", "8", "--overlap", "2")
    assert json.loads((tagged / "config.json").read_text())["id2label"] == {"0": "B-person", "1": "B-place", "2": "O"}
    assert json.loads((tagged / "scores.json").read_text()).keys() == {
        "f1", "precision", "recall", "accuracy", "collapsed",
    }  # fmt: skip
    find = TokenClassifier.load(tagged, max_length=8, overlap=2)
    found = small.predictions(tagged)
    assert len(found) == 13
    for one in found:
        entities = [(x.kind, " ".join(one["words"][x.start : x.stop])) for x in find_entities(one["tags"])]
        answer = find(" ".join(one["words"]))
        assert [(x["entity_group"], x["word"]) for x in answer] == entities

    lines = (place / "dev.conll").read_text().splitlines()
    (place / "dev-plain.conll").write_text("".join(line.split("\t")[0] + "\n" for line in lines))
    flags = ["--do", "predict", "--max-length", "8", "--overlap", "2"]
    plain = small.predictions(run("tokens", "tagged-plain", *flags, model="tagged", data="-plain.conll"))
    assert [(one["words"], one["tags"]) for one in plain] == [(one["words"], one["tags"]) for one in found]
    assert not any("gold" in one for one in plain)


@pytest.mark.parametrize("data", [".json", "-v2.json"])
def test_answers_are_those_of_the_pipeline(run, place, data):
    flags = ["--batch-size", "16", "--learning-rate", "1e-2", "--max-length", "48", "--max-question-length", "12"]
    asked = run("squad", f"asked{data}", *flags, "--epochs", "1", data=data)
    answers, found = json.loads((asked / "predictions.json").read_text()), small.predictions(asked)
    assert [one["id"] for one in found] == list(answers) == [f"q{number}" for number in range(13)]
    nbest = json.loads((asked / "nbest_predictions.json").read_text())
    assert all(
        len(some) <= 21 and sum(one["probability"] for one in some) == pytest.approx(1) for some in nbest.values()
    )
    scores = json.loads((asked / "scores.json").read_text())
    if data == "-v2.json":
        assert json.loads((asked / "null_odds.json").read_text()).keys() == answers.keys()
        assert scores.keys() >= {"exact_match", "f1", "has_answer_f1", "best_f1", "best_f1_threshold"}
        assert scores["f1"] == scores["best_f1"]
        rounded = {"null_threshold": pytest.approx(scores["null_threshold"], abs=SAME_IN_FLOAT32)}
        assert {"null_threshold": json.loads((asked / "config.json").read_text())["null_threshold"]} == rounded
    else:
        assert scores.keys() == {"exact_match", "f1"}
        assert "null_threshold" not in json.loads((asked / "config.json").read_text())
    answer = QuestionAnswerer.load(asked, max_length=48)
    paragraphs = json.loads((place / f"dev{data}").read_text())["data"][0]["paragraphs"]
    nothing = {"text": [], "answer_start": []}  # like a test set without answers
    rows = [{"id": f"q{i}", "question": one["qas"][0]["question"], "context": one["context"], "answers": nothing}
            for i, one in enumerate(paragraphs)]  # fmt: skip
    (place / "dev-plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = run("squad", f"plain{data}", *flags[4:], "--do", "predict", model=f"asked{data}", data="-plain.jsonl")
    assert json.loads((plain / "predictions.json").read_text()) == answers
    assert (plain / "null_odds.json").exists() == (data == "-v2.json")
    assert not {"scores.json", "mistakes.md"} & {path.name for path in plain.iterdir()}
    assert not any("gold" in one for one in small.predictions(plain))
    for one, paragraph in zip(found, paragraphs, strict=True):
        assert one["answer"] == answers[one["id"]]
        assert answer(question=one["question"], context=paragraph["context"])["answer"] == one["answer"]


def test_choices_are_those_of_the_pipeline(run, place):
    chosen = run("multiple-choice", "chosen", *SHORT, "--epochs", "1", on=2)
    found = small.predictions(chosen)
    assert len(found) == 13
    for one in found:
        assert one["choice"] == int(np.argmax(one["probabilities"]))
        assert sum(one["probabilities"]) == pytest.approx(1)
    lines = [json.loads(line) for line in (place / "dev.jsonl").read_text().splitlines()]
    (place / "dev-plain.jsonl").write_text(
        "".join(json.dumps(row | {"label": "?"}) + "\n" for row in lines)  # labels are ignored in predictions
    )
    flags = ["--do", "predict", "--max-length", "32", "--batch-size", "5"]
    plain = small.predictions(run("multiple-choice", "plain", *flags, model="chosen", data="-plain.jsonl"))
    assert [one["choice"] for one in plain] == [one["choice"] for one in found]
    assert not any("gold" in one for one in plain)
    given = [{"text": row["sent1"], "choices": [f"it was {row[f'ending{i}']}" for i in range(3)]} for row in lines]
    for one, answer in zip(found, MultipleChoice.load(chosen)(given), strict=True):
        assert answer["probabilities"] == pytest.approx(one["probabilities"], abs=SAME_IN_FLOAT32)
    right = np.mean([one["choice"] == one["gold"] for one in found])
    scores = json.loads((chosen / "scores.json").read_text())
    assert scores == {"accuracy": pytest.approx(right), "collapsed": len({one["choice"] for one in found}) == 1}
    assert bert_jax.load(chosen).config.num_labels == 1
    # Examples are evaluated in another order; each prediction belongs to its own example.
    [loss] = [row["eval_loss"] for row in small.rows(chosen) if "eval_loss" in row]
    assert -np.mean([np.log(one["probabilities"][one["gold"]]) for one in found]) == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(
    ("problem", "labels"), [("regression", ["0.5", "1.5"]), ("multi_label_classification", ["dull", "dull,long"])]
)
def test_regression_and_several_labels_are_trained_and_predicted(run, place, problem, labels):
    for name in ("train", "dev"):
        data = (place / f"{name}.tsv").read_text()
        for number in (0, 1):
            data = data.replace(f"\t{number}\n", f"\t{labels[number]}\n")
        (place / f"{name}-{problem}.tsv").write_text(data)
    flags = ["--problem-type", problem, "--epochs", "2", *SHORT[:4], *SHORT[6:]]
    learned = run("classification", problem, *flags, data=f"-{problem}.tsv")
    assert (problem == "regression") == (learned / "scores.png").exists()
    config = json.loads((learned / "config.json").read_text())
    assert config["problem_type"] == problem
    assert len(config["id2label"]) == (1 if problem == "regression" else 2)
    texts = [one["text"] for one in small.predictions(learned)]
    texts.insert(5, "")
    (place / f"plain-{problem}.tsv").write_text("".join(f"{text}\n" for text in ["text", *texts]))
    (place / f"odd-{problem}.tsv").write_text("text\tcategory\n" + "".join(f"{text}\t[1]\n" for text in texts))
    found = []
    for kind in ("plain", "odd"):
        given = ["--model", learned, "--dev", place / f"{kind}-{problem}.tsv", "--do", "predict", "--max-length", "32"]
        found.append(small.predictions(finetune("classification", place / f"{kind}-{problem}", *given)))
        assert [one["text"] for one in found[-1]] == texts
    assert found[0] == found[1]
    other = "regression" if problem != "regression" else "multi_label_classification"
    asked = ["--do", "evaluate", "--problem-type", other, "--max-length", "32"]
    with pytest.raises(ValueError, match=f"--problem-type {other}: .* is a model for {problem}"):
        run("classification", "other", *asked, model=problem, data=f"-{problem}.tsv")


def test_predicting_needs_no_labels_and_skips_no_row(run, place, reviewed):
    lines = [line.split("\t")[0] for line in (place / "dev.tsv").read_text().splitlines()[1:]]
    (place / "plain.tsv").write_text("\n".join(["text", *lines]) + "\n")
    folder = finetune("classification", place / "predicted", "--model", reviewed, "--dev", place / "plain.tsv",
                      "--do", "predict", "--max-length", "32", "--batch-size", "4")  # fmt: skip
    got, want = small.predictions(folder), small.predictions(reviewed)
    assert [(one["text"], one["label"]) for one in got] == [(one["text"], one["label"]) for one in want]
    assert not any("gold" in one for one in got)
    assert not {"scores.json", "confusion.png", "mistakes.md"} & {path.name for path in folder.iterdir()}


def test_a_sweep_ranks_its_combinations_on_both_splits_of_mnli(place):
    names = ["entailment", "neutral", "contradiction"]
    random = np.random.default_rng(0)
    for file, count in (("train", 24), ("dev_matched", 7), ("dev_mismatched", 9)):
        rows = [
            f"{small.sentence(random, 'film')}\t{small.sentence(random, 'plot')}\t{names[i % 3]}" for i in range(count)
        ]
        path = place / "glue" / "MNLI" / f"{file}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["sentence1\tsentence2\tgold_label", *rows]) + "\n")
    swept = finetune("classification", place / "swept", "--model", place / "model", "--glue", "MNLI", "--glue-folder",
                     place / "glue", "--max-length", "32", "--no-pack", "--clip-norm", "0", "--sweep", "--sweep-epochs",
                     "1", "--sweep-batch-sizes", "8", "--sweep-learning-rates", "1e30", "1e-2")  # fmt: skip
    table = [json.loads(line) for line in (swept / "sweep.jsonl").read_text().splitlines()]
    assert [(row["learning_rate"], row["mean"] is None) for row in table] == [(1e-2, False), (1e30, True)]
    assert_same_tensors(swept, swept / table[0]["folder"])
    assert len(small.predictions(swept)) == 7
    assert len(small.predictions(swept, "mismatched_predictions.jsonl")) == 9
    [row] = [row for row in small.rows(swept) if "eval_loss" in row]
    assert row.keys() >= {"eval_accuracy", "eval_mismatched_accuracy", "eval_mismatched_loss"}
    assert json.loads((swept / "config.json").read_text())["id2label"] == dict(zip("012", names, strict=True))
    scores = json.loads((swept / "scores.json").read_text())
    assert scores["accuracy"] == row["eval_accuracy"]

    # The order of the labels may differ between the model and GLUE.
    values = json.loads((swept / "config.json").read_text())
    order = [2, 0, 1]
    values["id2label"] = {str(i): names[k].upper() for i, k in enumerate(order)}
    (swept / "config.json").write_text(json.dumps(values))
    weights = dict(tensors(swept))
    weights |= {f"classifier.{name}": weights[f"classifier.{name}"][order] for name in ("weight", "bias")}
    small.save(swept, weights)
    turned = finetune("classification", place / "turned", "--model", swept, "--glue", "mnli", "--glue-folder",
                      place / "glue", "--do", "evaluate", "--max-length", "32")  # fmt: skip
    assert json.loads((turned / "scores.json").read_text())["accuracy"] == scores["accuracy"]


def test_notes_about_few_long_and_empty_examples(place, tmp_path, capsys):
    texts = ["a film was lovely and it was great", "it was \ud800 dull"] * 2 + [" "]
    few = [json.dumps({"text": text, "label": "no" if "dull" in text else "yes"}) for text in texts]
    (tmp_path / "few.jsonl").write_text("\n".join(few))
    finetune("classification", tmp_path / "run", "--model", place / "model", "--train", tmp_path / "few.jsonl", "--dev",
             tmp_path / "few.jsonl", "--max-length", "6", "--epochs", "1", "--no-pack", "--resume",
             "--begin")  # fmt: skip
    said = capsys.readouterr().out
    assert f"{tmp_path / 'few.jsonl'}: rows with an empty text: 1 (first: {tmp_path / 'few.jsonl'}:5)" in said
    assert "the evaluation data is the training data" in said
    assert "longer than 6 tokens, and cut: 2 of 5 examples of train" in said
    assert "text in 'text', label in 'label'" in said
    assert f"no checkpoint in {tmp_path / 'run'} to resume from: starting at step 0" in said
    assert "2 labels: no, yes" in said
    assert "train: 14 tokens, 0.00% of them [UNK]; labels (with counts): yes (3), no (2)" in said
    assert "train: 8 tokens (36.4%) cut off and never seen" in said
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert facts["splits"]["train"]["labels"] == {"yes": 3, "no": 2}
    assert facts["sources"][0]["read"] == 5
    assert facts["sources"][0]["columns"] == {"text": "text", "label": "label"}
    assert "compiled for rows x tokens: training 32 x 6; evaluation 32 x 6" in said
    assert [one["text"] for one in small.predictions(tmp_path / "run")] == texts


def test_a_run_is_not_replaced_unasked(reviewed, run, place):
    before = (reviewed / "training.json").read_text(), small.rows(reviewed)
    with pytest.raises(FileExistsError, match="holds a run already"):
        run("classification", "reviewed", *SHORT)
    with pytest.raises(ValueError, match="--freeze 9: the model has 2 layers"):
        run("classification", "reviewed", *SHORT, "--overwrite", "--freeze", "9")
    with pytest.raises(ValueError, match="contains the model to start from"):
        run("classification", "reviewed", *SHORT, "--overwrite", model="reviewed")
    assert before == ((reviewed / "training.json").read_text(), small.rows(reviewed))
