"""Presets: complete settings of pretraining, to be changed in part.

The presets with BERT's names have BERT's published values. `demo` has its own and learns within minutes on two cores.
`modern-base` has those of ModernBERT's first phase, `modern-tiny` is a ModernBERT for two cores. `continue` is for a
model that is trained already.

References: Devlin et al., BERT, 2018, appendix A.2. Sun et al., How to Fine-Tune BERT for Text Classification?, 2019,
section 4.2 (further pretraining). Warner et al., ModernBERT, 2024, section 2.2.
"""

import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.pretraining.loader import BatchSettings
from bert_jax.pretraining.phases import longest_row, total_steps
from bert_jax.pretraining.settings import Optimizer, Reports, Run, Settings, Training
from bert_jax.pretraining.source import source_config
from bert_jax.training.runs.folder import settings_to_resume

FILM_SENTENCES = (
    "i really [MASK] this film .",
    "the acting was very [MASK] .",
    "this is one of the [MASK] movies i have ever seen .",
    "the story of a young [MASK] who falls in love .",
    "a complete waste of [MASK] .",
)

# With BERT's published settings a small model stays on the plateau of the unigram baseline for hours on two cores. It
# leaves the plateau within minutes with: initial weights near 1/sqrt(hidden), more masks, short rows, a high learning
# rate and a fast second moment.
DEMO = Settings(
    batches=BatchSettings(max_length=64, packing=False, masked_share=0.2, short_probability=0.0),  # rows 97 % full
    model=BertConfig(
        vocab_size=5_000,
        num_hidden_layers=2,
        hidden_size=128,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_act="gelu_new",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.09,
        dtype="auto",
    ),
    training=Training(steps=4_000, batch_size=32, unroll=2),
    optimizer=Optimizer(
        optimizer="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=300, decay_steps=4_000, beta2=0.98
    ),
    reports=Reports(eval_every=1_000, checkpoint_every=1_000, eval_rows=0, fill_mask=FILM_SENTENCES),
)


# 90 % of BERT's steps had rows of 128 tokens, the others 512.
SIZES = {
    name: Settings(
        run=Run(preset=name, output=f"runs/{name}"),
        batches=BatchSettings(max_length=512),
        model=BertConfig.preset(name, dtype="auto"),
        training=Training(phases=("128:90%", "512:10%")),
    )
    for name in PRESETS
}
# 1.7 trillion tokens in rows of 1,024 at the peak learning rate, and 50 billion of decay. The original had StableAdamW,
# smaller batches at first, and rows of 8,192 before its decay.
MODERN_BASE = Settings(
    run=Run(preset="modern-base", output="runs/modern-base"),
    batches=BatchSettings(max_length=1_024, masked_share=0.3, objective="mlm"),
    model=replace(BertConfig.from_dict({"model_type": "modernbert"}), dtype="auto"),
    training=Training(steps=375_000, batch_size=4_608),
    optimizer=Optimizer(
        optimizer="adamw",
        learning_rate=8e-4,
        schedule="warmup-stable-decay",
        decay_share=0.03,
        warmup_steps=640,
        decay_steps=375_000,
        beta2=0.98,
        weight_decay=1e-5,
    ),
)
# Small enough for two cores, with two layers of each kind; initial weights as in DEMO.
MODERN_TINY = Settings(
    run=Run(preset="modern-tiny", output="runs/modern-tiny"),
    batches=BatchSettings(max_length=128, masked_share=0.2, objective="mlm"),
    model=replace(
        MODERN_BASE.model,
        vocab_size=5_000,
        pad_token_id=0,
        num_hidden_layers=4,
        hidden_size=128,
        num_attention_heads=4,
        intermediate_size=192,
        local_attention=32,
        initializer_range=0.09,
    ),
    training=Training(steps=4_000, batch_size=16),
    optimizer=replace(MODERN_BASE.optimizer, learning_rate=2e-3, decay_share=0.2, warmup_steps=300, decay_steps=4_000),
    reports=Reports(eval_every=1_000, checkpoint_every=1_000, fill_mask=FILM_SENTENCES),
)
CONTINUE = Settings(
    run=Run(preset="continue", output="runs/continued"),
    training=Training(steps=100_000, batch_size=32),
    optimizer=Optimizer(learning_rate=5e-5, decay_steps=100_000),
)
ALL_PRESETS = {
    "demo": DEMO,
    **SIZES,
    "modern-tiny": MODERN_TINY,
    "modern-base": MODERN_BASE,
    "continue": CONTINUE,
}


def make_settings(preset: str | None = None, **changes: Any) -> Settings:
    """Returns the settings of a preset, and some of them changed: `make_settings("tiny", corpus=("a.txt",), steps=9)`.

    The names are those of the flags of `train.py`, with underscores. With `model`, the architecture is that of the
    model. With `resume=True`, the settings are those of the run in `output`, if there is one, instead of the preset's.

    Args:
        preset: default: `demo`, or `continue` with `model`.

    Raises:
        ValueError: there is no such preset, no setting of that name, or a value has the wrong type.
        FileNotFoundError: there is no such `model`.
    """
    chosen = {name: changes.get(name) for name in ("model", "output")}
    settings = initial_settings(preset, resume=bool(changes.get("resume")), **chosen)
    return with_implied(settings.replace(**changes), changes.keys())


def initial_settings(
    preset: str | None,
    *,
    model: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Settings:
    """Returns the settings from which changes start: those of the run to resume, if there is one, or of a preset.

    Args:
        model: to continue from; the preset's settings then have its architecture. That of a run that is resumed is not
            read: it may be gone.
    """
    name = preset or ("demo" if model is None else "continue")
    if name not in ALL_PRESETS:
        raise ValueError(f"`preset` must be one of {', '.join(ALL_PRESETS)}; got {name!r}")
    settings = ALL_PRESETS[name]
    if resume:
        recorded = settings_to_resume(settings, os.fspath(output or settings.run.output))
        if recorded.run.resume:
            return recorded
    return settings if model is None else _with_architecture(settings.replace(model=model))


def _with_architecture(settings: Settings) -> Settings:
    """Returns the settings with the architecture of `run.model`, whose position table limits the rows."""
    assert settings.run.model is not None
    config = source_config(settings.run.model, look_up=True)
    preset_length = settings.batches.max_length
    learned = config.position_embedding_type == "absolute"
    longest = min(preset_length, config.max_length) if learned else preset_length
    settings = replace(settings, model=config).replace(max_length=longest)
    return settings if longest == preset_length else settings.replace(phases=())


def with_implied(settings: Settings, given: Collection[str]) -> Settings:
    """Returns the settings with those that the `given` ones imply: names of settings that the user has set.

    Phases imply the longest row and, as numbers, the steps. A length of rows implies that there are no phases.
    """
    phases = settings.training.phases
    if "phases" in given and phases:
        implied = {"max_length": longest_row(phases), "steps": total_steps(phases)}
        return settings.replace(
            **{name: value for name, value in implied.items() if name not in given and value is not None}
        )
    return settings.replace(phases=()) if "max_length" in given else settings
