"""Pretraining end to end: what a run leaves, how it is resumed, and which messages bad input gives."""

import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from small_runs import SMALL, WORDS, write_corpus
from small_trackers import Recorder, recorded_tracker

import bert_jax
import train as script
from bert_jax import pretraining as library
from bert_jax.cli.programs import parse_pretraining
from bert_jax.pipelines import FillMask
from bert_jax.pretraining import make_settings, phase_run
from bert_jax.pretraining.corpus import Documents
from bert_jax.pretraining.presets import ALL_PRESETS
from bert_jax.pretraining.summary import final_metrics
from bert_jax.training.loop import Milestones
from bert_jax.training.metric_logger import NotFinite
from bert_jax.training.runs.contents import clear_run
from bert_jax.training.runs.interruption import Interrupted
from bert_jax.training.runs.lock import RunInUse, lock_run

pytestmark = pytest.mark.slow

ACCUMULATION_TOLERANCE = 1e-5  # relative; sums are computed in another order


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "films.txt")


@pytest.fixture(scope="module")
def pretrain(corpus, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def run(output, *flags):
        script.main([*SMALL, "--corpus", str(corpus), "--cache-dir", str(cache), "--output", str(output), *flags])
        return output

    return run


@pytest.fixture(scope="module")
def stopped(pretrain, tmp_path_factory):
    """A run of six steps, a run that stopped at step 3 and was resumed, and the files of the latter at step 3."""
    folder = tmp_path_factory.mktemp("runs")
    whole = pretrain(folder / "whole")
    with recorded_tracker():
        halves = pretrain(folder / "halves", "--steps", "3", "--track", "trackio:films")
        left = sorted(path.name for path in halves.iterdir())
        pretrain(folder / "halves", "--resume", "--steps", "6")
    return whole, halves, left


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_clock(row):
    return {name: value for name, value in row.items() if name != "tokens_per_second"}


def test_a_run_leaves_what_the_design_lists(stopped):
    assert set(stopped[2]) >= {
        "config.json", "training.json", "tokenizer.json", "vocab.txt", "metrics.jsonl", "tensorboard", "curves.png",
        "checkpoints", "data.json",
    }  # fmt: skip
    run = stopped[1]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["3", "6"]
    assert json.loads((run / "config.json").read_text())["architectures"] == ["BertForPreTraining"]
    settings = json.loads((run / "training.json").read_text())["settings"]
    assert settings["optimizer"]["learning_rate"] == 0.01
    assert settings["model"]["dtype"] == "float32"  # of the default, auto
    assert list((run / "tensorboard").glob("events.*"))
    keys = {"step", "loss", "masked_lm_loss", "masked_lm_accuracy", "next_sentence_accuracy", "learning_rate"}
    assert rows(run)[0].keys() > keys | {"tokens_per_second", "row_efficiency"}
    assert rows(run)[-1].keys() >= {"eval_masked_lm_loss", "eval_masked_lm_accuracy", "eval_next_sentence_accuracy"}


def test_a_tracker_gets_settings_rows_and_curves_and_the_resumed_run_once(stopped):
    halves = stopped[1]
    first, second = (run for run in Recorder.runs if run.folder == halves)
    assert first.project == "films"
    assert first.config["optimizer"]["learning_rate"] == 0.01
    assert second.run_id == first.run_id == json.loads((halves / "tracker.json").read_text())["run"]
    sent = [(step, name, value) for run in (first, second) for step, row in run.rows for name, value in row.items()]
    kept = [(row["step"], name, value) for row in rows(halves) for name, value in row.items() if name != "step"]
    assert [step for step, row in (*first.rows, *second.rows) if "eval/loss" in row] == [3, 6]
    assert sorted(sent) == sorted((step, name.replace("eval_", "eval/"), value) for step, name, value in kept)
    assert [run.pictures for run in (first, second)] == [["curves.png"], ["curves.png"]]
    assert (first.failed, second.failed) == (False, False)


def test_a_resumed_run_equals_one_that_never_stopped_to_the_bit(stopped):
    whole, halves, _ = stopped
    one, two = ([without_clock(row) for row in rows(run) if "loss" in row] for run in (whole, halves))
    assert [row["step"] for row in two] == [1, 2, 3, 4, 5, 6]
    assert one == two
    assert rows(whole)[-1] == rows(halves)[-1]
    params = [bert_jax.load(run).params for run in (whole, halves)]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_an_evaluation_that_an_interrupted_run_skipped_is_done_on_resume(pretrain, stopped, tmp_path, monkeypatch):
    reach = Milestones.reach

    def interrupted_at_the_last_step(self, state, step):
        self.session.interruption.received = signal.SIGTERM if step == 6 else None
        return reach(self, state, step)

    with monkeypatch.context() as patch:
        patch.setattr(Milestones, "reach", interrupted_at_the_last_step)
        with pytest.raises(Interrupted, match="SIGTERM: saved at step 6"):
            pretrain(tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
    for _ in range(2):  # the second time, metrics.jsonl has it
        pretrain(tmp_path / "run", "--resume")
    assert [without_clock(row) for row in rows(tmp_path / "run")] == [without_clock(row) for row in rows(stopped[0])]


def test_a_run_can_be_loaded_and_called(stopped):
    bert = bert_jax.load(stopped[1])
    assert bert.config.hidden_size == 16
    inputs = bert.tokenizer(["the film was good.", "a story"])
    outputs = bert(**inputs)
    B, T = inputs["input_ids"].shape
    assert outputs.last_hidden_state.shape == (B, T, 16)
    assert outputs["prediction_logits"].shape == (B, T, bert.config.vocab_size)
    assert outputs.seq_relationship_logits.shape == (B, 2)
    alone = bert(inputs["input_ids"][1:, :4], attention_mask=np.ones((1, 4)).astype(int))
    np.testing.assert_allclose(alone.last_hidden_state[0], outputs.last_hidden_state[1, :4], atol=1e-5)


def test_ids_outside_their_tables_are_refused(stopped):
    bert = bert_jax.load(stopped[1])
    with pytest.raises(ValueError, match=r"input_ids must lie in \[0, .*\), got 30999"):
        bert([[2, 30999, 3]])
    with pytest.raises(ValueError, match=r"token_type_ids must lie in \[0, 2\), got -1"):
        bert([[2, 3]], token_type_ids=[[0, -1]])


def test_masks_are_filled(stopped):
    fill = FillMask.load(stopped[1])
    answers = fill("the [MASK] was good.", top=3)
    assert [set(answer) for answer in answers] == [{"score", "token", "token_str", "sequence"}] * 3
    assert answers[0]["score"] >= answers[1]["score"] >= answers[2]["score"] > 0
    assert answers[0]["token_str"] in answers[0]["sequence"]


def test_another_run_is_not_touched(pretrain, stopped):
    before = rows(stopped[0]), (stopped[0] / "training.json").read_text()
    with pytest.raises(FileExistsError, match="holds a run already"):
        pretrain(stopped[0])
    with pytest.raises(ValueError, match=r"began with learning_rate 0\.01, now learning_rate is 0\.5"):
        pretrain(stopped[0], "--resume", "--learning-rate", "0.5")
    with pytest.raises(ValueError, match="is at step 6 already, beyond --steps 4"):
        pretrain(stopped[0], "--resume", "--steps", "4")
    assert before == (rows(stopped[0]), (stopped[0] / "training.json").read_text())


def test_a_run_of_a_version_without_a_setting_is_resumed_with_its_default(pretrain, stopped, tmp_path):
    """The next error shows that the comparison of settings has passed."""
    run = shutil.copytree(stopped[1], tmp_path / "run")
    record = json.loads((run / "training.json").read_text())
    assert record["settings"]["optimizer"].pop("beta2") == 0.999
    (run / "training.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is at step 6 already"):
        pretrain(run, "--resume", "--steps", "4")
    with pytest.raises(ValueError, match=r"began with beta2 0\.999, now beta2 is 0\.5"):
        pretrain(run, "--resume", "--steps", "4", "--beta2", "0.5")


def test_a_run_of_a_version_with_other_groups_of_settings_is_resumed(pretrain, stopped, tmp_path):
    run = shutil.copytree(stopped[1], tmp_path / "run")
    record = json.loads((run / "training.json").read_text())
    values = {name: value for group in record["settings"].values() for name, value in group.items()}
    assert values["hidden_size"] == 16
    record["settings"] = {"an older group": values}
    (run / "training.json").write_text(json.dumps(record))
    settings = parse_pretraining(["--output", str(run), "--resume"])
    assert (settings.model.hidden_size, settings.batches.max_length, settings.optimizer.decay_steps) == (16, 24, 50)
    with pytest.raises(ValueError, match="is at step 6 already"):
        pretrain(run, "--resume", "--steps", "4")


def test_the_library_returns_the_run(stopped, corpus, tmp_path):
    """With the settings of the command line, the same parameters to the bit; also in a thread, as in a server."""
    changes = {"corpus": (str(corpus),), "cache_dir": str(tmp_path), "output": str(tmp_path / "run")}
    settings = parse_pretraining(["--output", str(stopped[0]), "--resume"]).replace(resume=False, **changes)
    with ThreadPoolExecutor(1) as pool:
        trained = pool.submit(library.pretrain, settings).result()
    assert trained.folder == tmp_path / "run"
    assert trained.metrics == rows(trained.folder)[-1] == rows(stopped[0])[-1]
    jax.tree.map(np.testing.assert_array_equal, trained.model.params, bert_jax.load(stopped[0]).params)
    with pytest.raises(FileExistsError, match="holds a run already"):
        library.pretrain(settings)
    with pytest.raises(ValueError, match="`warmup_steps=50` must be below `decay_steps=50`"):
        library.pretrain(settings.replace(warmup_steps=50))


def test_metrics_without_an_evaluation_are_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: no evaluation"):
        final_metrics(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_good_checkpoint(pretrain, tmp_path):
    flags = ["--learning-rate", "1e30", "--clip-norm", "0", "--optimizer", "adamw", "--warmup-steps", "2"]
    with pytest.raises(NotFinite, match=r"step 2: norm of the parameters inf.* good checkpoint is of step 1"):
        pretrain(tmp_path / "run", "--steps", "9", "--checkpoint-every", "1", *flags)
    outputs = bert_jax.load(tmp_path / "run")([[2, 5, 6, 3]])
    assert np.isfinite(outputs.prediction_logits).all()


def test_a_loss_that_stays_at_the_unigram_baseline_gives_a_warning(pretrain, tmp_path, capsys):
    pretrain(tmp_path / "run", "--learning-rate", "1e-9", "--eval-every", "2")
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    # Warm-up ends at step 3. The baseline is the one that the summary prints.
    assert [line.partition(":")[0] for line in warnings] == ["step 4", "step 6"]
    assert "is no better than the unigram baseline" in warnings[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "12"], "a batch of 12 rows cannot be divided over 8 groups of devices x 1 micro-batches"),
        (["--max-length", "600"], "--max-length 600 exceeds the position embeddings: --max-position-embeddings 512"),
        (["--tensor", "4"], "--tensor 4 does not divide --num-attention-heads 2"),
        (["--parallel", "pmap", "--fsdp", "2"], "--parallel pmap splits only rows: --fsdp 2 x --tensor 1"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--steps", "51"], "--steps 51 exceeds --decay-steps 50.*: set --decay-steps 51 too"),
        (["--steps", "51", "--resume"], "--decay-steps cannot change on resume; start a new run with --decay-steps 51"),
        (["--learning-rate", "-1"], "--learning-rate must be above 0"),
        (["--preset", "huge"], "--preset must be one of demo, tiny"),
        (["--vocab-size", "4"], "--vocab-size 4 leaves no room beside 5 special tokens"),
        (
            ["--tokenizer-kind", "bpe"],
            "--vocab-size 150 is too small for --tokenizer-kind bpe, which needs at least 261",
        ),
        (
            ["--tokenizer-kind", "unigram", "--tokenizer", "a"],
            "--tokenizer-kind unigram cannot be combined with --tokeniz",
        ),
        (["--tokenizer", "absent.json"], r"--tokenizer: absent\.json does not exist"),
        (["--masked-share", "2"], "masked.share must"),
        (["--seed", "-1"], "seed must"),
        (["--max-length", "4"], "max.length.* must be at least 5"),
        (["--short-probability", "3"], "short.probability.* must"),
        (["--fill-mask", "no mask here"], r"--fill-mask: each sentence must contain one \[MASK\], got 'no mask here'"),
        (["--clip-norm", "-1"], r"--clip-norm must be at least 0, got -1\.0"),
        (["--beta2", "1.5"], r"--beta2 must be in \[0, 1\), got 1\.5"),
        (["--warmup-steps", "50"], "--warmup-steps 50 must be below --decay-steps 50"),
        (["--corpus", "absent.txt"], "absent.txt"),
        (["--hidden-size", "17"], "hidden.size.* 17 is not divisible by .*num.attention.heads.* 2"),
        (["--held-out", "1.5"], "--held-out must be between 0 and 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_give_one_line_and_no_folder(pretrain, tmp_path, flags, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        pretrain(tmp_path / "run", *flags)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_to_resume_must_exist(pretrain, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run in .*/runn to resume: check --output, or add --begin"):
        pretrain(tmp_path / "runn", "--resume")
    with pytest.raises(ValueError, match="--begin is only used with --resume"):
        pretrain(tmp_path / "run", "--begin")
    assert not list(tmp_path.iterdir())


def test_a_corpus_of_one_document_is_an_error(pretrain, tmp_path):
    (tmp_path / "one.txt").write_text("One sentence. And another one.\n")
    with pytest.raises(
        ValueError,
        match=r"one\.txt: next-sentence prediction needs two documents to train on and two held out, found 1; "
        "blank lines separate documents, or set --document line",
    ):
        pretrain(tmp_path / "run", "--corpus", str(tmp_path / "one.txt"))


def test_documents_of_one_sentence_are_enough(pretrain, stopped, tmp_path, capsys):
    """All second sentences are random ones, so there is no ranking accuracy."""
    (tmp_path / "short.txt").write_text("\n\n".join(f"{' '.join(WORDS[i:])} {' '.join(WORDS[:i])}" for i in range(12)))
    flags = ["--corpus", str(tmp_path / "short.txt"), "--tokenizer", str(stopped[0])]
    pretrain(tmp_path / "run", *flags, "--steps", "1")
    printed = capsys.readouterr().out
    assert "NSP ranking accuracy" not in printed
    assert printed.index("warning: 100% of the second sentences are random") < printed.index("model: ")


def test_a_run_is_resumed_on_the_same_corpus_and_not_on_a_changed_or_deleted_one(corpus, pretrain, stopped, tmp_path):
    """Whatever the names of the files, and if the vocabulary it began with is not there any more."""
    text = tmp_path / "films.txt"
    vocabulary = tmp_path / "vocab.txt"
    text.write_text(corpus.read_text())
    vocabulary.write_bytes((stopped[0] / "vocab.txt").read_bytes())
    pretrain(tmp_path / "run", "--corpus", str(text), "--steps", "1", "--tokenizer", str(vocabulary))
    with pytest.raises(ValueError, match="began with contents of the tokenizer"):
        pretrain(tmp_path / "run", "--steps", "2", "--resume", "--tokenizer", str(write_vocabulary(tmp_path)))
    vocabulary.unlink()
    (tmp_path / "run" / "config.json").write_text("{")  # cut off
    pretrain(tmp_path / "run", "--corpus", str(corpus), "--steps", "1", "--resume")
    text.write_text(corpus.read_text().replace("film", "play"))
    with pytest.raises(ValueError, match="began with contents of the corpus"):
        pretrain(tmp_path / "run", "--corpus", str(text), "--steps", "2", "--resume")
    text.unlink()
    with pytest.raises(FileNotFoundError, match=r"no such file: .*films\.txt"):
        pretrain(tmp_path / "run", "--corpus", str(text), "--steps", "2", "--resume")


def write_vocabulary(folder):
    """Writes the special tokens and two letters."""
    path = folder / "other.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a"]))
    return path


def test_a_second_process_is_refused_before_any_work(pretrain, tmp_path, monkeypatch):
    def read(settings):
        with pytest.raises(
            RunInUse, match=r"run is in use by process \d+ on .*: wait until it ends, or choose another --out"
        ):
            pretrain(tmp_path / "run")
        raise ValueError("the first process ends")

    monkeypatch.setattr(Documents, "read", read)
    with pytest.raises(ValueError, match="the first process ends"):
        pretrain(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_use_can_be_read(stopped):
    with lock_run(stopped[0]):
        assert bert_jax.load(stopped[0]).config.hidden_size == 16
        assert final_metrics(stopped[0])["step"] == 6


def test_overwriting_removes_all_that_a_run_left(stopped, tmp_path):
    for run in stopped[:2]:
        copied = shutil.copytree(run, tmp_path / run.name)
        clear_run(copied)
        assert [path.name for path in copied.iterdir()] == ["training.json"]


def test_no_input_may_be_in_the_folder_of_the_run(corpus, pretrain, tmp_path):
    run = tmp_path / "run"
    for name, flags in (
        ("corpus", ["--corpus", str(run / "films.txt")]),
        ("cache-dir", ["--cache-dir", str(run / "a")]),
    ):
        with pytest.raises(ValueError, match=f"--{name}: .* is in --output, the folder of the run"):
            pretrain(run, *flags)
    assert list(tmp_path.iterdir()) == []


def test_other_values_of_all_options(pretrain, stopped, tmp_path):
    """All options at another value at once; then resumed on another layout of devices and with workers."""
    flags = [
        "--tokenizer", str(stopped[0]), "--dtype", "bfloat16", "--remat", "full", "--optimizer", "lamb",
        "--schedule", "cosine", "--whole-word-masking", "--position-embedding-type", "sinusoidal", "--accumulate", "2",
        "--batch-size", "16", "--language", "de", "--unroll", "2", "--keep-checkpoints", "1", "--checkpoint-every", "1",
        "--keep-best", "1",
    ]  # fmt: skip
    run = pretrain(tmp_path / "run", *flags, "--steps", "2", "--fsdp", "2", "--tensor", "2", "--on-nan", "skip")
    assert [row["skipped"] for row in rows(run) if "loss" in row] == [0, 0]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["2"]
    pretrain(run, *flags, "--steps", "3", "--resume", "--num-workers", "1", "--parallel", "pmap", "--fsdp", "1",
             "--tensor", "1", "--on-nan", "rewind")  # fmt: skip
    assert [row["step"] for row in rows(run) if "loss" in row] == [1, 2, 3]
    assert bert_jax.load(run).config.dtype == "bfloat16"
    pretrain(run, "--steps", "1", "--overwrite")
    assert bert_jax.load(run).config.dtype == "float32"


@pytest.fixture
def evaluated(monkeypatch):
    """By the function that evaluates: the number of devices, and the rows that one of them holds at once."""
    found = {}

    def watch(name):
        function = getattr(phase_run, name)

        def watched(step, params, batches):
            def note(batch):
                shards = batch["input_ids"].addressable_shards
                found.setdefault(name, set()).update((len(shards), shard.data.shape[0]) for shard in shards)
                return batch

            return function(step, params, map(note, batches))

        monkeypatch.setattr(phase_run, name, watched)

    watch("evaluate")
    watch("nsp_ranking_accuracy")
    return found


def test_a_run_is_resumed_with_more_micro_batches(pretrain, evaluated, tmp_path):
    """As on fewer devices, which hold fewer rows at once: in evaluations and after the last step too."""
    flags = ["--batch-size", "16", "--hidden-dropout-prob", "0", "--attention-probs-dropout-prob", "0"]
    flags += ["--checkpoint-every", "2"]
    whole = pretrain(tmp_path / "whole", *flags, "--steps", "4")
    parts = shutil.copytree(whole, tmp_path / "parts")
    assert evaluated == {"evaluate": {(8, 2)}, "nsp_ranking_accuracy": {(8, 2)}}
    evaluated.clear()
    shutil.rmtree(parts / "checkpoints" / "4")
    pretrain(parts, *flags, "--steps", "4", "--resume", "--accumulate", "2")
    assert evaluated == {"evaluate": {(8, 1)}, "nsp_ranking_accuracy": {(8, 1)}}
    found, wanted = ([row["loss"] for row in rows(run) if "loss" in row] for run in (parts, whole))
    assert len(wanted) == 4
    assert found[:2] == wanted[:2]
    np.testing.assert_allclose(found, wanted, rtol=ACCUMULATION_TOLERANCE)


def test_a_finished_run_whose_metrics_are_missing_is_evaluated_again(pretrain, stopped, tmp_path, capsys):
    run = shutil.copytree(stopped[0], tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    pretrain(run, "--resume")
    output = capsys.readouterr().out
    assert "Held-out metrics after 6 steps" in output
    assert [row["step"] for row in rows(run) if "eval_loss" in row] == [6]
    assert "The model is in" in output


def test_a_resumed_run_keeps_its_settings(stopped):
    settings = parse_pretraining(["--output", str(stopped[1]), "--resume", "--steps", "9"])
    assert settings.model.hidden_size == 16
    assert settings.training.steps == 9


def test_presets_keep_berts_values():
    settings = parse_pretraining(["--preset", "base"])
    training, optimizer = settings.training, settings.optimizer
    assert (training.steps, training.batch_size, optimizer.learning_rate) == (1_000_000, 256, 1e-4)
    assert (optimizer.warmup_steps, optimizer.beta2, optimizer.optimizer) == (10_000, 0.999, "bert_adamw")
    assert (settings.model.initializer_range, settings.batches.masked_share) == (0.02, 0.15)


@pytest.mark.parametrize("preset", ALL_PRESETS)
def test_every_preset_chooses_the_dtype_by_platform(preset):
    settings = make_settings(preset)
    assert [settings.for_platform(name).model.dtype for name in ("cpu", "gpu")] == ["float32", "bfloat16"]


def test_modern_tiny_is_pretrained_continued_and_resumed(corpus, tmp_path):
    def run(name, *flags):
        common = ["--corpus", str(corpus), "--cache-dir", str(tmp_path / "cache"), "--output", str(tmp_path / name)]
        sizes = ["--vocab-size", "150", "--max-length", "32", "--batch-size", "8", "--log-every", "1", "--quiet"]
        script.main([*common, *sizes, *flags])
        return tmp_path / name

    small = ["--preset", "modern-tiny", "--hidden-size", "16", "--num-attention-heads", "2", "--fill-mask"]
    whole = run("whole", *small, "--steps", "4")
    bert = bert_jax.load(whole)
    assert type(bert.model).__name__ == "BertForMaskedLM"
    assert (bert.config.model_type, bert.config.local_attention) == ("modernbert", 32)
    bert.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["architectures"] == ["ModernBertForMaskedLM"]
    run("halves", *small, "--steps", "2")
    halves = run("halves", "--resume", "--steps", "4")
    for one, other in zip(*(jax.tree.leaves(bert_jax.load(folder).params) for folder in (whole, halves)), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="ModernBERT has no next-sentence head: set --objective mlm"):
        run("pairs", *small, "--objective", "mlm-nsp")
