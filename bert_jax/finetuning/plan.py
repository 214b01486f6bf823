"""The plan of a fine-tuning (`finetune.py --plan`): its training as shapes, see `training.devices.plan`."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from bert_jax.config import resolve_dtype
from bert_jax.data.finetuning.batches import BatchShape
from bert_jax.finetuning.checks import check
from bert_jax.finetuning.model import initial_parameters
from bert_jax.finetuning.program import read_inputs
from bert_jax.finetuning.settings import Settings
from bert_jax.finetuning.trainer import Trainer
from bert_jax.training.devices import parallel
from bert_jax.training.devices.plan import RunSpec, plan_runs
from bert_jax.training.devices.targets import Target
from bert_jax.training.steps import prediction_step


def plan(settings: Settings) -> Iterator[str]:
    """Yields the lines of a plan, for this machine or for `settings.run.device`, each as soon as it is known.

    Model and data are read, because the data decide how long rows are and how many a batch has.

    Raises:
        ValueError: settings, data or a model that do not fit together, or devices that the compiler does not know.
        ImportError: the compiler for `device` is not installed.
        OSError: files that are missing.
    """
    settings = settings.with_length()
    check(settings)
    target = None if settings.run.device is None else Target.parse(settings.run.device)
    devices = settings.devices
    layout = parallel.make_layout(
        devices.parallel, fsdp=devices.fsdp, tensor=devices.tensor, devices=target and target.devices()
    )
    settings = settings.replace(dtype=resolve_dtype(settings.training.dtype, parallel.platform_of(layout.mesh)))
    settings, data, _, bert = read_inputs(settings)
    trainer = Trainer(settings, data, bert, layout, None, test_kernel=target is None)
    yield from plan_runs([run_spec(trainer)], layout, target)


def run_spec(trainer: Trainer) -> RunSpec:
    """Returns a training as shapes, with the longest rows that it has."""
    settings = trainer.settings
    row_format = trainer.row_format
    first = trainer.batches[0]

    def blank(rows: int) -> dict[str, np.ndarray]:
        return dict(first.build([], BatchShape(rows, row_format.row_length)))

    # An evaluation has no dropout, and one batch for all seeds.
    still = replace(trainer.config, attention_probs_dropout_prob=0.0)
    objective = trainer.task.objective(trainer.model.clone(config=still), training=False)
    return RunSpec(
        name="plan",
        model=trainer.model,
        step=trainer.step,
        evaluation=trainer.ensemble.evaluate(partial(prediction_step, objective=objective)),
        state=jax.eval_shape(trainer.state, initial_parameters(settings, trainer.bert, trainer.ensemble)),
        batch=lambda rows: trainer.ensemble.stack_batches([blank(rows)] * len(trainer.ensemble)),
        evaluated=blank,
        rows=row_format.expected_rows(trainer.features, settings.training.batch_size),
        examples=settings.training.batch_size,
        accumulate=settings.devices.accumulate,
        unit=row_format.multiple,
        steps=trainer.steps,
    )
