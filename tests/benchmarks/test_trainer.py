"""The fine-tuning benchmark: the Trainer reads our batches unchanged; speed is measured on finetune.py's loop."""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import small_finetuning as small
from common import results
from torch_extra import of_torch_extra

import bert_jax
from bert_jax.data.finetuning.batches import Features, RowFormat, TrainingBatches
from bert_jax.data.finetuning.sequences import Sequences, offsets_of
from bert_jax.training.seeds import SeedEnsemble

BENCHMARK = Path(results.__file__).parents[1] / "finetune.py"


@pytest.fixture(scope="module")
def benchmark():
    """benchmarks/finetune.py, loaded by its path, because a module called finetune exists in the root too."""
    spec = importlib.util.spec_from_file_location("finetune_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["classes", "tags", "answers"])
def test_the_trainer_receives_every_example_of_our_batches_unchanged(kind, packed):
    of_torch_extra("torch")
    of_torch_extra("transformers")
    from common import trainer

    random = np.random.default_rng(0)
    lengths = np.arange(3, 14)
    tokens = int(lengths.sum())
    ones = np.ones(len(lengths), np.float32)
    sequences = Sequences(np.arange(tokens, dtype=np.int32), offsets_of(lengths), (lengths // 2).astype(np.int32))
    known = random.integers(0, 2, tokens)
    tags = random.integers(0, 5, tokens)
    starts = random.integers(0, lengths).astype(np.int32)
    targets_of_kind = {
        "classes": {"of_sequences": {"labels": starts, "weights": ones}},
        "tags": {"of_tokens": {"labels": tags.astype(np.int32), "weights": known.astype(np.float32)}},
        "answers": {
            "of_sequences": {"weights": ones},
            "positions": {"start_positions": starts, "end_positions": starts + 1},
        },
    }
    features = Features(sequences, **targets_of_kind[kind])
    source = TrainingBatches(features, RowFormat.choose([features], batch_size=4, packed=packed, pad_id=0), 4, seed=0)
    ensemble = SeedEnsemble((0,), frozenset())
    batches = [ensemble.stack_batches([source(index)]) for index in range(source.steps_per_epoch)]
    examples = [one for batch in batches for one in trainer.features_of_batch(batch)]

    examples.sort(key=lambda one: one["input_ids"][0])
    assert len(examples) == len(lengths)
    for index, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        inside = slice(sequences.offsets[index], sequences.offsets[index + 1])
        assert example.pop("input_ids") == sequences.ids[inside].tolist()
        assert example.pop("attention_mask") == [1] * length
        assert example.pop("token_type_ids") == (np.arange(length) >= length // 2).tolist()
        expected = {
            "classes": {"label": starts[index]},
            "tags": {"labels": np.where(known, tags, trainer.IGNORED_LABEL)[inside].tolist()},
            "answers": {"start_positions": starts[index], "end_positions": starts[index] + 1},
        }
        assert example == expected[kind]


def test_the_trainer_reads_our_batches_in_order():
    of_torch_extra("torch")
    of_torch_extra("transformers")
    from common import trainer

    class BareTrainer(trainer.Trainer):
        def __init__(self, batches):
            self.batches = batches
            self.data_collator = list

    ids = np.arange(1, 25, dtype=np.int32).reshape(3, 2, 1, 4)
    batches = [
        {"input_ids": some, "attention_mask": np.ones_like(some), "token_type_ids": np.zeros_like(some)}
        | {"labels": np.zeros((2, 1, 1), np.int32), "weights": np.ones((2, 1, 1), np.float32)}
        for some in ids
    ]
    read = [[one["input_ids"] for one in batch] for batch in BareTrainer(batches).get_train_dataloader()]
    assert read == ids[:, :, 0].tolist()


@pytest.fixture
def comparison(benchmark, tmp_path):
    """Reviews to classify, in batches of 8 examples, with a small model."""
    task = benchmark.Task("classification", "", "", "classification", "eval_accuracy", 1e-3, 8, 2)
    options = argparse.Namespace(
        model=str(small.make_model(tmp_path / "model", max_position_embeddings=128)),
        dropout=None,
        sides=["bert_jax"],
        steps=2,
        rounds=1,
        folder=tmp_path,
    )
    train = small.reviews(tmp_path / "train.tsv", 36)
    dev = small.reviews(tmp_path / "dev.tsv", 13, seed=1)
    return benchmark.Comparison("reviews", task, train, dev, options)


def test_speed_is_measured_on_the_state_and_batches_of_finetune_py(benchmark, comparison, capsys):
    with small.devices(1):
        rates, flop = benchmark.measure_speed(comparison)
    assert rates.keys() == {"bert_jax"}
    assert rates["bert_jax"][0] > 0
    assert flop > 0
    assert "bert_jax: " in capsys.readouterr().out  # the shapes of the batches


def test_a_paired_run_starts_from_the_saved_initial_model_and_reads_all_epochs(benchmark, comparison, tmp_path):
    with small.devices(1):
        batches = benchmark.initial_model_and_batches(comparison, 0, tmp_path / "run")
    examples = [int((batch["weights"] > 0).sum()) for batch in batches]
    assert sum(examples) == 2 * 36
    assert max(examples) == 8
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert bert_jax.load(tmp_path / "run").config.label_names == ("0", "1")


@pytest.mark.parametrize(("name", "separator"), [("train.tsv", "\n"), ("train.conll", "\n\n"), ("train.json", None)])
def test_a_sample_is_the_same_in_every_call(benchmark, tmp_path, name, separator):
    write = {"\n": small.reviews, "\n\n": small.tagged, None: small.questions}[separator]
    source = write(tmp_path / name, 40)
    sample = benchmark.sample_examples(source, 0.25, separator, tmp_path)
    first = sample.read_text()
    assert benchmark.sample_examples(source, 0.25, separator, tmp_path).read_text() == first
    if separator is None:
        assert len(benchmark.read_questions(str(sample))) == 10
    else:
        header = 1 if separator == "\n" else 0
        assert len(first.strip().split(separator)) - header == 10
    assert benchmark.sample_examples(source, 1.0, separator, tmp_path) == source
