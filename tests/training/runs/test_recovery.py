"""A batch that is not finite, with a compiled step on several devices, Orbax and the run's files."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from resumable import rows

from bert_jax.data.prefetch import Batches
from bert_jax.training.devices import parallel
from bert_jax.training.loop import Cadence, Session, train
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step

STEPS, POISONED = 8, 5
OBJECTIVE: Any = SimpleNamespace(
    loss_and_metrics=lambda params, batch, key: {
        "loss": (jnp.square(params["pooler"]["bias"] - batch["input_ids"]).sum(), jnp.float32(batch["input_ids"].size))
    },
    losses={"loss": "input_ids"},
)
OPTIMIZER = optax.adam(0.1)


def batch(number):
    """Batch `number`, from 1 on, for 8 devices."""
    random = np.random.default_rng(number)
    x = random.normal(size=(8, 3)).astype(np.float32)
    return {"input_ids": np.where(number == POISONED, np.float32(np.nan), x), "attention_mask": np.ones((8, 3))}


def fit(run, numbers, *, skip=False, rewind=False):
    """Fits to the batches of these numbers; returns the parameters."""
    layout = parallel.make_layout("mesh")
    params = {"pooler": {"bias": jnp.zeros((1, 3))}}
    state = layout.create(lambda key: TrainState.create(params, OPTIMIZER, key=key), jax.random.key(3))
    step = layout.compile_step(partial(train_step, objective=OBJECTIVE, optimizer=OPTIMIZER, skip=skip), state)
    run.mkdir()
    reporter = Reporter(run, first_step=0, last_step=STEPS, panels=(), headline=(), quiet=True)
    batches = Batches(lambda index: batch(numbers[index]), count=len(numbers), position=lambda given: {"row": given})
    with Checkpoints(run / "checkpoints") as checkpoints, batches, reporter:
        state = train(
            state,
            batches,
            step=step,
            device_put=layout.device_put,
            evaluate=lambda state: {"eval_loss": 1.0},
            steps=min(STEPS, len(numbers)),
            session=Session(checkpoints, reporter, Cadence(log=1, checkpoint=3)),
            rewind=rewind,
        )
    return np.asarray(state.params["pooler"]["bias"])


def test_a_rewound_run_ends_as_one_without_the_batches_after_the_checkpoint(tmp_path, capsys):
    """Batch 5 is bad, which is known after batch 6: the steps from 4 on use the batches from 7 on."""
    rewound = fit(tmp_path / "rewound", range(1, 20), rewind=True)
    output = capsys.readouterr().out
    assert "step 5: loss nan, gradient norm nan: rewound to step 3, continuing with the next data" in output
    assert "compiled again" not in output
    never = fit(tmp_path / "never", [1, 2, 3, *range(7, 20)])
    np.testing.assert_array_equal(rewound, never)
    assert [row["step"] for row in rows(tmp_path / "rewound")] == [*range(1, STEPS + 1), STEPS]
    assert rows(tmp_path / "rewound") == rows(tmp_path / "never")


def test_a_run_with_a_skipped_update_ends_as_one_without_the_batch(tmp_path, capsys):
    skipped = fit(tmp_path / "skipped", range(1, STEPS + 1), skip=True)
    output = capsys.readouterr().out
    assert "step 5: loss nan, gradient norm nan: its update was skipped" in output
    assert "compiled again" not in output
    never = fit(tmp_path / "never", [number for number in range(1, STEPS + 1) if number != POISONED], skip=True)
    np.testing.assert_array_equal(skipped, never)
    found = [row for row in rows(tmp_path / "skipped") if "loss" in row]
    assert [row["skipped"] for row in found] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [row["step"] for row in found if row["loss"] is None] == [POISONED]
