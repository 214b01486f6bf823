"""The plan of a pretraining run (`train.py --plan`): its phases as shapes, see `training.devices.plan`."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np

from bert_jax.pretraining.checks import check
from bert_jax.pretraining.model import Computation, model_config
from bert_jax.pretraining.phases import Phase
from bert_jax.pretraining.prepared import require_corpus, tokenizer_source
from bert_jax.pretraining.program import make_layout
from bert_jax.pretraining.settings import Settings
from bert_jax.pretraining.source import count_new_words
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices.parallel import Layout, platform_of
from bert_jax.training.devices.plan import RunSpec, plan_runs
from bert_jax.training.devices.targets import Target


def plan(settings: Settings) -> Iterator[str]:
    """Yields the lines of a plan, for this machine or for `settings.run.device`, each as soon as it is known.

    Raises:
        ValueError: settings that cannot be trained, or devices that the compiler does not know.
        ImportError: the compiler for `device` is not installed.
        OSError: no such corpus. A dataset on the hub is not looked up.
    """
    check(settings)
    require_corpus(settings)
    target = None if settings.run.device is None else Target.parse(settings.run.device)
    layout = make_layout(settings, target and target.devices())
    runs = (phase_spec(settings, phase, layout, test_kernel=target is None) for phase in settings.phases)
    yield from plan_runs(runs, layout, target)


def phase_spec(settings: Settings, phase: Phase, layout: Layout, *, test_kernel: bool = True) -> RunSpec:
    """Returns a phase as shapes. Its text is not read: the vocabulary has the size that the settings ask for.

    Args:
        layout: of this machine's devices or of a `Target`'s.
        test_kernel: whether to test the attention kernel on this machine; False with a `Target`.
    """
    settings = settings.of_phase(phase)
    tokenizer = tokenizer_source(settings)
    if tokenizer is None:
        config = replace(settings.model, vocab_size=settings.model.vocab_size + count_new_words(settings))
    else:
        config = model_config(settings, Tokenizer.load(tokenizer))
    mask = np.ones((1, settings.batches.max_length), np.int32)
    computation = Computation.make(settings, config, mask, platform=platform_of(layout.mesh), test_kernel=test_kernel)
    return RunSpec(
        name="plan" if phase.num_phases == 1 else f"phase {phase.number} of {phase.num_phases}",
        model=computation.model,
        step=computation.step,
        evaluation=computation.evaluation_step(),
        state=jax.eval_shape(computation.state, jax.random.key(0)),
        batch=settings.batches.blank,
        evaluated=settings.batches.blank,
        rows=settings.training.batch_size,
        examples=settings.training.batch_size,
        accumulate=settings.devices.accumulate,
        unit=layout.shards * settings.devices.accumulate,
        steps=phase.steps,
    )
