"""What the benchmarks say of their figures: how costs grow, and where results are kept."""

from pathlib import Path

import growth
import numpy as np
import pytest
from common import timing
from torch_extra import of_torch_extra

from bert_jax.data.finetuning.batches import Features, Layout, TrainingPlan
from bert_jax.data.finetuning.sequences import Sequences, offsets_of

BENCHMARKS = Path(growth.__file__).parent
SIZES = (64, 128, 256, 512)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0])
def test_a_power_costs_twice_to_that_power(p):
    assert growth.doubling(SIZES, [3 * size**p for size in SIZES]) == pytest.approx(2**p)


def test_what_does_not_grow_never_makes_a_line_look_dearer():
    random = np.random.default_rng(0)
    for fixed in (0.0, 0.5, 2.0, 5.0):
        line = fixed * SIZES[-1] + np.array(SIZES)
        assert growth.doubling(SIZES, line) <= 2 + 1e-9
        assert growth.doubling(SIZES, line * random.uniform(0.95, 1.05, 4)) < 2 * (1 + growth.NOISE)


def test_only_the_length_may_cost_more_than_in_proportion():
    def verdicts(p):
        points = [growth.Point(size, seconds=0.1 + (size / 64) ** p, tokens=size, bytes=size << 20) for size in SIZES]
        lines = growth.lines_of({"length": points, "rows": points, growth.CORPUS: points}, rate=100.0)
        time = growth.doubling(SIZES, [point.seconds for point in points])
        assert all(f"| {time:.2f}x |  | 2.00x |" in line for line in lines[2:5])
        return [line.split("|")[-2].strip() for line in lines[2:5]]

    assert verdicts(1.0) == ["no faster than a line"] * 3
    assert verdicts(2.0) == ["attention's T²", "SUPER-LINEAR", "SUPER-LINEAR"]
    assert verdicts(2.5) == ["SUPER-LINEAR"] * 3


def test_a_picture_is_small(tmp_path):
    points = [growth.Point(size, seconds=size / 100, tokens=size, bytes=size << 20) for size in SIZES]
    growth.draw({"length": points, "rows": points}, str(tmp_path / "docs" / "growth.png"))
    assert 1_000 < (tmp_path / "docs" / "growth.png").stat().st_size < 100_000


def test_a_result_takes_the_place_of_its_own_section_of_that_processor_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["benchmarks/some.py", "--rows", "3", "--record"])
    for heading, text, processor in (("A", "one", "X"), ("B", "two", "X"), ("A", "other", "Y"), ("A", "three", "X")):
        monkeypatch.setattr(timing, "processor", lambda name=processor: name)
        timing.record(heading, text)
    sections = timing.RESULTS.read_text().split("\n## ")
    assert [section.splitlines()[0] for section in sections] == ["# Measured", "A (X)", "B (X)", "A (Y)"]
    assert "three" in sections[1]
    assert "one" not in sections[1]
    assert "    python benchmarks/some.py --rows 3\n" in sections[2]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["classes", "tags", "answers"])
def test_the_trainer_is_given_every_example_of_our_batches_as_it_was(kind, packed):
    of_torch_extra("torch")
    of_torch_extra("transformers")
    from common import trainer

    random, lengths = np.random.default_rng(0), np.arange(3, 14)
    tokens, ones = int(lengths.sum()), np.ones(len(lengths), np.float32)
    sequences = Sequences(np.arange(tokens, dtype=np.int32), offsets_of(lengths), (lengths // 2).astype(np.int32))
    known, tags = random.integers(0, 2, tokens), random.integers(0, 5, tokens)
    starts = random.integers(0, lengths).astype(np.int32)
    of_kind = {
        "classes": {"of_sequences": {"labels": starts, "weights": ones}},
        "tags": {"of_tokens": {"labels": tags.astype(np.int32), "weights": known.astype(np.float32)}},
        "answers": {
            "of_sequences": {"weights": ones},
            "positions": {"start_positions": starts, "end_positions": starts + 1},
        },
    }
    some = Features(sequences, **of_kind[kind])
    plan = TrainingPlan(some, Layout.fitting([some], batch_size=4, packed=packed, pad_id=0), 4, (0,))
    given = [one for step in range(plan.steps_per_epoch) for one in trainer.features_of(plan(step))]

    given.sort(key=lambda one: one["input_ids"][0])
    assert len(given) == len(lengths)
    for number, (one, length) in enumerate(zip(given, lengths, strict=True)):
        here = slice(sequences.offsets[number], sequences.offsets[number + 1])
        assert one.pop("input_ids") == sequences.ids[here].tolist()
        assert one.pop("attention_mask") == [1] * length
        assert one.pop("token_type_ids") == (np.arange(length) >= length // 2).tolist()
        targets = {
            "classes": {"label": starts[number]},
            "tags": {"labels": np.where(known, tags, trainer.IGNORED)[here].tolist()},
            "answers": {"start_positions": starts[number], "end_positions": starts[number] + 1},
        }
        assert one == targets[kind]


def test_the_trainer_takes_our_batches_in_their_order():
    of_torch_extra("torch")
    of_torch_extra("transformers")
    from common import trainer

    class Bare(trainer.Trainer):
        def __init__(self, batches):
            self.batches, self.data_collator = batches, list

    ids = np.arange(1, 25, dtype=np.int32).reshape(3, 2, 1, 4)
    batches = [
        {"input_ids": some, "attention_mask": np.ones_like(some), "token_type_ids": np.zeros_like(some)}
        | {"labels": np.zeros((2, 1, 1), np.int32), "weights": np.ones((2, 1, 1), np.float32)}
        for some in ids
    ]
    given = [[one["input_ids"] for one in batch] for batch in Bare(batches).get_train_dataloader()]
    assert given == ids[:, :, 0].tolist()


def test_the_documentation_lists_every_benchmark():
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    scripts = [path.name for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text()]
    assert len(scripts) > 9
    for name in scripts:
        script = "gpu.sh" if name == "gpu.py" else name  # gpu.sh sets the environment for gpu.py
        assert f"benchmarks/{script}" in page, script
