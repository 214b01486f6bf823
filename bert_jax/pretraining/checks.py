"""Checks of the settings of pretraining, before any work."""

import os
from dataclasses import fields
from pathlib import Path

from bert_jax.config import BertConfig
from bert_jax.pretraining.phases import longest_row
from bert_jax.pretraining.prepared import check_store, store_of, tokenizer_source
from bert_jax.pretraining.settings import Optimizer, Settings, Text
from bert_jax.pretraining.source import source_config
from bert_jax.text.vocabulary import KINDS, MASK, SPECIAL_TOKENS, smallest_vocabulary
from bert_jax.training.devices.plan import check_plan
from bert_jax.training.runs.contents import require_outside
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.saved_steps import newest_whole_step
from bert_jax.training.runs.tracking import check_track
from bert_jax.training.settings import (
    LONGEST_ROW,
    require_at_least,
    require_at_most,
    require_fraction,
)

# Fields of the model's config that `model` leaves to the settings. `initializer_range` is that of new parts.
FREE_WITH_MODEL = ("hidden_dropout_prob", "attention_probs_dropout_prob", "mlp_dropout", "initializer_range", "dtype")


def check(settings: Settings) -> None:
    """Raises ValueError, before any work, for settings that cannot be trained; the message names the setting."""
    optimizer = settings.optimizer
    require_at_least(1, settings.training, "steps", "batch_size")
    require_at_least(0, settings.training, "num_workers", "unroll")
    require_at_least(1, settings.devices, "accumulate", "fsdp", "tensor")
    require_at_least(1, optimizer, "decay_steps")
    require_at_least(0, optimizer, "warmup_steps")
    optimizer.check()
    require_fraction(optimizer, "beta1", "beta2")
    require_at_most(LONGEST_ROW, settings.batches, "max_length")
    require_at_least(1, settings.reports, "log_every", "keep_checkpoints")
    require_at_least(0, settings.reports, "eval_every", "eval_rows", "checkpoint_every", "keep_best")
    settings.run.check()
    check_track(settings.reports.track)
    _check_text(settings)
    _check_source(settings)
    _check_schedule(settings)
    _check_model(settings)
    _check_phases(settings)
    settings.processes.check()
    check_plan(settings.run, settings.devices, settings.processes)
    if tokenizer_source(settings) is None and settings.run.model is None and not settings.run.resume:
        check_masks(settings, MASK)  # otherwise when the tokenizer is read, which has its own


def check_masks(settings: Settings, mask_token: str) -> None:
    """Raises ValueError unless each sentence of `fill_mask` has one mask: the tokenizer's own, or [MASK]."""
    for sentence in settings.reports.fill_mask:
        if with_mask(sentence, mask_token).count(mask_token) != 1:
            either = MASK if mask_token == MASK else f"{mask_token} (or {MASK})"
            raise ValueError(f"`fill_mask`: each sentence must contain one {either}, got {sentence!r}")


def with_mask(sentence: str, mask_token: str) -> str:
    """Returns a sentence with the tokenizer's own mask token for [MASK]."""
    return sentence.replace(MASK, mask_token)


def check_steps(settings: Settings) -> None:
    """Raises ValueError if the run to resume is beyond its last step; moves damaged checkpoints away."""
    folder = Path(settings.run.output)
    reached = newest_whole_step(folder / CHECKPOINTS) if settings.run.resume else None
    if reached is not None and reached > settings.training.steps:
        raise ValueError(f"{folder} is at step {reached} already, beyond `steps={settings.training.steps}`")


def _check_text(settings: Settings) -> None:
    text = settings.text
    model = settings.model
    require_at_least(0, text, "min_frequency")
    if not 0 < text.held_out < 1:
        raise ValueError(f"`held_out` must be between 0 and 1, got {text.held_out}")
    if model.vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(f"`vocab_size={model.vocab_size}` leaves no room beside {len(SPECIAL_TOKENS)} special tokens")
    kind = text.tokenizer_kind
    if kind not in KINDS:
        raise ValueError(f"`tokenizer_kind` must be one of {', '.join(KINDS)}; got {kind!r:.60}")
    check_store(settings)
    given = text.tokenizer or settings.run.model or store_of(settings)
    if given is not None and kind != Text().tokenizer_kind:
        name = "tokenizer" if text.tokenizer else "model"
        raise ValueError(f"`tokenizer_kind={kind}` cannot be combined with `{name}`: {given} has a vocabulary")
    if given is None and model.vocab_size < smallest_vocabulary(kind):
        raise ValueError(
            f"`vocab_size={model.vocab_size}` is too small for `tokenizer_kind={kind}`, which needs at least "
            f"{smallest_vocabulary(kind)}"
        )
    # A resumed run has a copy of its vocabulary.
    if text.tokenizer is not None and not settings.run.resume and not os.path.exists(text.tokenizer):
        raise ValueError(f"`tokenizer`: {text.tokenizer} does not exist")
    require_outside(
        settings.run.output,
        corpus=text.corpus,
        tokenizer=(text.tokenizer,),
        cache_dir=(text.cache_dir,),
        model=(settings.starts_from,),
        add_tokens=(text.add_tokens if isinstance(text.add_tokens, str) else None,),
    )


def _check_source(settings: Settings) -> None:
    """Raises ValueError if settings contradict the model that the run starts from."""
    model = settings.starts_from
    new_words = settings.text.add_tokens
    if new_words is not None and settings.run.model is None:
        raise ValueError("`add_tokens` is only used with `model`: a vocabulary that is trained has the words it needs")
    if isinstance(new_words, int) and new_words < 1:
        raise ValueError(f"`add_tokens` must be at least 1, or a file, got {new_words}")
    if model is None:
        if settings.run.preset == "continue" and settings.run.model is None:
            raise ValueError("`preset=continue` needs `model`, the model to continue from")
        return
    if settings.text.tokenizer is not None:
        raise ValueError(f"`tokenizer` cannot be combined with `model`: {model} has its own")
    if isinstance(new_words, str) and not os.path.isfile(new_words):
        raise ValueError(f"`add_tokens`: {new_words} is neither a number nor a file")
    config = source_config(model)
    if settings.batches.next_sentence and not config.family.has_next_sentence:
        raise ValueError(f"{model} has no next-sentence head, as any {config.family.title}: set `objective=mlm`")
    if settings.batches.next_sentence and config.type_vocab_size < 2:
        raise ValueError(
            f"{model} has one token type: it cannot distinguish the two texts of a pair; set `objective=mlm`"
        )
    for one in fields(BertConfig):
        wanted = getattr(settings.model, one.name)
        own = getattr(config, one.name)
        if wanted != own and one.name not in FREE_WITH_MODEL:
            raise ValueError(f"`{one.name}={wanted}` contradicts {model}, where it is {own}: leave it out")


def _check_phases(settings: Settings) -> None:
    """Raises ValueError unless each phase can be trained; the longest row must be `max_length`."""
    if not settings.training.phases:
        return
    for phase in settings.phases:
        settings.of_phase(phase)  # BatchSettings checks the length
    longest = longest_row(settings.training.phases)
    if longest != settings.batches.max_length:
        phases = " ".join(settings.training.phases)
        raise ValueError(
            f"`max_length={settings.batches.max_length}` contradicts `phases`: the longest rows of {phases} have "
            f"{longest} tokens"
        )


def _check_schedule(settings: Settings) -> None:
    optimizer = settings.optimizer
    steps = settings.training.steps
    stable = optimizer.schedule == "warmup-stable-decay"
    if not stable and optimizer.decay_share != Optimizer().decay_share:
        raise ValueError("`decay_share` is only used with `schedule=warmup-stable-decay`")
    if optimizer.schedule == "constant":
        return
    if stable and optimizer.warmup_steps > (1 - optimizer.decay_share) * optimizer.decay_steps:
        raise ValueError(
            f"`warmup_steps={optimizer.warmup_steps}` reaches into the decay, the last `decay_share="
            f"{optimizer.decay_share}` of `decay_steps={optimizer.decay_steps}`"
        )
    if optimizer.warmup_steps >= optimizer.decay_steps:
        raise ValueError(
            f"`warmup_steps={optimizer.warmup_steps}` must be below `decay_steps={optimizer.decay_steps}`, "
            "at which the learning rate is 0"
        )
    if steps > optimizer.decay_steps:
        remedy = f"set `decay_steps={steps}` too"
        if settings.run.resume:
            remedy = f"`decay_steps` cannot change on resume; start a new run with `decay_steps={steps}`"
        raise ValueError(
            f"`steps={steps}` exceeds `decay_steps={optimizer.decay_steps}`, from which on the learning rate is 0: "
            f"{remedy}"
        )


def _check_model(settings: Settings) -> None:
    model = settings.model
    if settings.batches.next_sentence and not model.family.has_next_sentence:
        raise ValueError(f"{model.family.title} has no next-sentence head: set `objective=mlm`")
    length = settings.batches.max_length
    tensor = settings.devices.tensor
    if model.position_embedding_type == "absolute" and length > model.max_length:
        unused = f", of which the first {model.position_offset} are not used" if model.position_offset else ""
        if settings.training.phases:
            rows = f"`phases`: rows of {length} tokens exceed"
        else:
            rows = f"`max_length={length}` exceeds"
        raise ValueError(
            f"{rows} the position embeddings: `max_position_embeddings={model.max_position_embeddings}`{unused}"
        )
    if model.num_attention_heads % tensor:
        raise ValueError(f"`tensor={tensor}` does not divide `num_attention_heads={model.num_attention_heads}`")
