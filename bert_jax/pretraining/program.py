"""Pretrain a BERT: masked words and sentence pairs, from text files to a folder that `bert_jax.load` reads.

python train.py -- a small BERT of film reviews, in about four minutes on two cores.

python train.py --corpus 'texts/*.txt' --preset base --output RUN -- BERT's published settings on your own text.

python train.py --output RUN --resume --steps 200000 -- go on where RUN stopped.

python train.py --preset base --plan -- what a run would take: memory, the largest batch, speed.
"""

# Read it from top to bottom: 1 text, 2 rows, 3 model, 4 training, 5 what was learned, 6 all of it in order.
# The settings are in bert_jax/pretraining/settings.py.
#
# References: Devlin et al., BERT, 2018, section 3.1 and appendix A.2.

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from datasets import Dataset

from bert_jax.config import BertConfig
from bert_jax.data.prefetch import Batches
from bert_jax.data.pretraining.loader import BatchSettings, evaluation_batches, training_batches
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.data.readers.corpus import read_corpus, split_documents
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.interop.loading import load, save_config
from bert_jax.models import Bert, BertForPreTraining
from bert_jax.pipelines import FillMask
from bert_jax.pretraining.plan import RunSpec, report
from bert_jax.pretraining.settings import MAY_CHANGE_ON_RESUME, Settings, architecture, check, read_settings
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import parallel, processes
from bert_jax.training.devices.compilation_cache import keep_compiled
from bert_jax.training.devices.kernel_choice import AttentionInputs, choose_kernel
from bert_jax.training.loop import Cadence, Session, train
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import Schedule, make_optimizer, make_schedule
from bert_jax.training.runs.checkpoints import CHECKPOINTS, Checkpoints, newest_step, newest_whole_step
from bert_jax.training.runs.folder import begin_run, check_run
from bert_jax.training.runs.interruption import Interruption
from bert_jax.training.runs.metrics import evaluate, ranking_accuracy, read_metrics, unigram_entropy
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.settings import as_record, defaults_of
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import evaluation_step, train_step
from bert_jax.training.watch import Watch

# ---------------------------------------------------------------------------------------------------------------------
# 1. Text: documents, some of them held out; a vocabulary; token ids on disk
# ---------------------------------------------------------------------------------------------------------------------


def read_documents(settings: Settings) -> tuple[Dataset, Dataset]:
    """Returns the documents to train on and those held out."""
    text = settings.text
    if text.corpus:
        documents = read_corpus(
            text.corpus, text_column=text.text_column, encoding=text.encoding, cache_dir=text.cache_dir
        )
    else:
        documents = movie_reviews(text.cache_dir)
    count = len(documents)
    if count < 4:
        wanted = "next-sentence prediction needs two documents to train on and two held out"
        raise ValueError(f"{', '.join(text.corpus)}: {wanted}, found {count}")
    return split_documents(documents, max(2, round(text.held_out * count)), settings.run.seed)


def make_tokenizer(settings: Settings, documents: Dataset) -> Tokenizer:
    """Returns the run's tokenizer: the one it began with, the one that was asked for, or a new one."""
    text, run = settings.text, Path(settings.run.output)
    if settings.run.resume and newest_step(run / CHECKPOINTS) is not None:
        return Tokenizer.load(run)
    if text.tokenizer:
        return Tokenizer.load(text.tokenizer)

    def trained() -> bytes:
        tokenizer = Tokenizer.train(
            Texts(documents),
            text.vocab_size,
            lowercase=text.lowercase,
            strip_accents=text.strip_accents,
            min_frequency=text.min_frequency,
        )
        return tokenizer.backend.to_str().encode()

    return Tokenizer.of(processes.broadcast_from_first("the vocabulary is trained", trained))


# ---------------------------------------------------------------------------------------------------------------------
# 2. Rows: sentence pairs, masked
# ---------------------------------------------------------------------------------------------------------------------


def row_settings(settings: Settings) -> BatchSettings:
    """Returns what a row of the batch looks like."""
    return BatchSettings(**asdict(settings.rows), seed=settings.run.seed)


def held_out_batches(
    settings: Settings, store: TokenStore, tokenizer: Tokenizer, share: tuple[int, int] = (0, 1)
) -> Batches:
    """Returns the held-out rows once, the same in every evaluation; of each batch the part `share`, (index, count)."""
    return evaluation_batches(
        store,
        tokenizer,
        row_settings(settings),
        batch_size=settings.training.batch_size,
        limit_rows=settings.reports.eval_rows or None,
        process_index=share[0],
        process_count=share[1],
        cache_dir=settings.text.cache_dir,
    )


# ---------------------------------------------------------------------------------------------------------------------
# 3. Model and step
# ---------------------------------------------------------------------------------------------------------------------


def make_model(settings: Settings, config: BertConfig, rows: AttentionInputs) -> BertForPreTraining:
    """Returns the model, with the attention kernel that is right for its rows."""
    options = settings.model
    kernel, why = choose_kernel(options.attention, config, rows)
    if jax.default_backend() == "gpu":
        print(f"attention: {kernel or 'plain matrix products'} ({why})")
    return BertForPreTraining(config, remat=options.remat, unroll=options.unroll, kernel=kernel)


def make_update(settings: Settings) -> tuple[optax.GradientTransformation, Schedule]:
    """Returns the optimizer and its learning-rate schedule."""
    options = settings.training
    schedule = make_schedule(
        options.schedule,
        peak=options.learning_rate,
        warmup_steps=options.warmup_steps,
        decay_steps=options.decay_steps,
    )
    optimizer = make_optimizer(
        options.optimizer,
        schedule,
        weight_decay=options.weight_decay,
        beta1=options.beta1,
        beta2=options.beta2,
        clip_norm=options.clip_norm or None,
    )
    return optimizer, schedule


def make_state(key: jax.Array, settings: Settings, model: BertForPreTraining) -> TrainState:
    """Returns the state before the first step."""
    parameters_key, rest = jax.random.split(key)
    params = model.init(parameters_key, jnp.zeros((1, 2), jnp.int32))["params"]
    return TrainState.create(params, make_update(settings)[0], key=run_key(rest, settings.training.random_bits))


def make_step(settings: Settings, model: Bert) -> Callable:
    """Returns the pure (state, batch, axis) -> (state, figures)."""
    optimizer, schedule = make_update(settings)
    return partial(
        train_step,
        objective=pretraining(model),
        optimizer=optimizer,
        schedule=schedule,
        accumulate=settings.training.accumulate,
        skip=settings.training.on_nan == "skip",
    )


def run_spec(settings: Settings, layout: parallel.Layout) -> RunSpec:
    """Returns the run as shapes, from which programs are compiled."""
    text, rows, options = settings.text, row_settings(settings), settings.training
    vocab_size = Tokenizer.load(text.tokenizer).vocab_size if text.tokenizer else text.vocab_size
    mask = np.ones((1, rows.max_length), np.int32)
    config = architecture(settings.model, vocab_size=vocab_size)
    model = make_model(settings, config, AttentionInputs(mask, rows.packing, layout.devices_in_a_program))
    return RunSpec(
        model,
        step=partial(make_step, settings),
        state=jax.eval_shape(partial(make_state, settings=settings, model=model), jax.random.key(0)),
        batch=rows.blank,
        rows=options.batch_size,
        unit=layout.shards * options.accumulate,
        steps=options.steps,
    )


# ---------------------------------------------------------------------------------------------------------------------
# 4. Training
# ---------------------------------------------------------------------------------------------------------------------

PANELS = (
    ("masked LM loss (nats)", "masked_lm_loss"),
    ("next-sentence accuracy", "next_sentence_accuracy"),
    ("learning rate", "learning_rate"),
    ("tokens / s", "tokens_per_second"),
)
HEADLINE = (
    ("held-out masked LM loss", "eval_masked_lm_loss", ".3f"),
    ("perplexity", "eval_perplexity", ".1f"),
    ("accuracy", "eval_masked_lm_accuracy", ".3f"),
    ("next sentence", "eval_next_sentence_accuracy", ".3f"),
)


def pretrain(
    settings: Settings,
    layout: parallel.Layout,
    run: Path,
    train_store: TokenStore,
    held_out: TokenStore,
    tokenizer: Tokenizer,
    watch: Watch,
) -> None:
    """Trains, or goes on training, until the last step; leaves checkpoints, figures and curves in `run`."""
    options, reports = settings.training, settings.reports
    with held_out_batches(settings, held_out, tokenizer) as batches:
        mask = next(batches)["attention_mask"]
    config = architecture(settings.model, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    model = make_model(settings, config, AttentionInputs(mask, settings.rows.packing, layout.devices_in_a_program))
    if processes.is_first() and newest_step(run / CHECKPOINTS) is None:
        save_config(run, model)
        tokenizer.save(run)
    state = layout.create(partial(make_state, settings=settings, model=model), jax.random.key(settings.run.seed))
    step = layout.compile_step(make_step(settings, model), state)
    share = parallel.slice_to_read(layout)
    measure = layout.compile_evaluation(partial(evaluation_step, objective=pretraining(model)), state.params)

    def evaluation(state: TrainState) -> dict[str, float]:
        with held_out_batches(settings, held_out, tokenizer, share) as batches:
            return evaluate(measure, state.params, map(layout.device_put, batches))

    with Checkpoints(run / CHECKPOINTS, keep=reports.keep_checkpoints, keep_best=reports.keep_best) as checkpoints:
        position: dict[str, Any] = {"row": 0}
        if checkpoints.latest is not None:
            state, position = checkpoints.restore(state)
            print(f"going on from step {int(state.step):,} of {options.steps:,}")
        elif settings.run.resume:
            print(f"no checkpoint in {run} to go on from: beginning with step 0")
        batches = training_batches(
            train_store,
            tokenizer,
            row_settings(settings),
            batch_size=options.batch_size,
            start_row=position["row"],
            num_workers=options.num_workers,
            process_index=share[0],
            process_count=share[1],
            cache_dir=settings.text.cache_dir,
        )
        describe(settings, model, state, batches.rows_per_pass)
        with batches, make_reporter(settings, run, int(state.step)) as reporter, Interruption() as interruption:
            cadence = Cadence(reports.log_every, reports.eval_every, reports.checkpoint_every)
            train(
                state,
                batches,
                step=step,
                device_put=layout.device_put,
                evaluate=evaluation,
                steps=options.steps,
                session=Session(checkpoints, reporter, cadence, watch, interruption),
                score=lambda metrics: float(metrics["eval_loss"]),
                rewind=options.on_nan == "rewind",
            )
            reporter.draw()


def make_reporter(settings: Settings, run: Path, first_step: int) -> Reporter:
    """Returns what writes metrics to files and to the screen."""
    steps, quiet = settings.training.steps, settings.reports.quiet
    return Reporter(run, first_step=first_step, last_step=steps, panels=PANELS, headline=HEADLINE, quiet=quiet)


def describe(settings: Settings, model: BertForPreTraining, state: TrainState, rows_per_pass: int) -> None:
    """Prints what is about to be trained, and how."""
    config, options = model.config, settings.training
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(
        f"model: {config.num_hidden_layers} layers of {config.hidden_size}, vocabulary {config.vocab_size:,}, "
        f"{count / 1e6:.1f} million parameters, on {jax.device_count()} {jax.devices()[0].platform} device(s)"
    )
    print(
        f"training: {options.steps:,} steps of {options.batch_size} rows of {settings.rows.max_length} tokens, "
        f"{options.steps * options.batch_size / rows_per_pass:.1f} passes over the corpus; "
        f"learning rate {options.learning_rate:g} from step {options.warmup_steps:,} on, {options.schedule} to step "
        f"{options.decay_steps:,}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# 5. What was learned
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KnowingNothing:
    """What the held-out rows say to a model that knows only how often words and labels occur."""

    pairs: int
    entropy: float  # nats, of the words to predict
    commoner: float  # share of the commoner next-sentence label

    @classmethod
    def of(cls, batches: Batches) -> "KnowingNothing":
        words, labels = [], []
        for batch in batches:
            words.append(batch["masked_labels"][batch["masked_weights"] > 0])
            labels.append(batch["next_sentence_labels"][batch["next_sentence_weights"] > 0])
        random = np.concatenate(labels).mean()
        return cls(sum(map(len, labels)), unigram_entropy(words), float(max(random, 1 - random)))


def told_apart(run: Path, batches: Batches) -> float:
    """Returns how often, of a true and a random next sentence, the model prefers the true one."""
    bert, scores, labels = load(run, head="BertForNextSentencePrediction"), [], []
    names = ("attention_mask", "token_type_ids", "position_ids", "cls_positions")
    for batch in batches:
        inputs: dict[str, Any] = {name: batch[name] for name in names}
        logits = np.asarray(bert(batch["input_ids"], **inputs).seq_relationship_logits)
        counts = batch["next_sentence_weights"] > 0
        scores.append((logits[..., 1] - logits[..., 0])[counts])
        labels.append(batch["next_sentence_labels"][counts])
    return ranking_accuracy(np.concatenate(scores), np.concatenate(labels))


def conclude(settings: Settings, run: Path, nothing: KnowingNothing, preferred: float) -> None:
    """Prints held-out figures beside what knowing nothing comes to, and fills some masks."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "eval_loss" in row]
    if rows:
        compare(rows[-1], nothing, preferred)
    else:  # a run that was done already, and somebody took its figures
        print(f"\n{run / 'metrics.jsonl'} holds no evaluation any more, to say what was learned")
    if settings.reports.fill_mask:
        fill = FillMask(load(run))
        print("  the likeliest words for a [MASK]:")
        for text in settings.reports.fill_mask:
            words = ", ".join(f"{found['token_str']} {found['score']:.0%}" for found in fill(text))
            print(f"    {text}\n      {words}")
    print(f"\nThe model is in {run}: bert_jax.load({str(run)!r})")


def compare(row: dict[str, float], nothing: KnowingNothing, preferred: float) -> None:
    """Prints the figures of an evaluation beside what knowing nothing comes to."""
    loss, entropy = row["eval_masked_lm_loss"], nothing.entropy
    side = "below" if loss < entropy else "above"
    print(f"\nWhat it learned after {row['step']:,} steps, on {nothing.pairs:,} pairs of sentences it has not seen:")
    print(f"  masked LM loss          {loss:.3f} nats, perplexity {row['eval_perplexity']:.1f}")
    print(f"  word frequencies alone  {entropy:.3f} nats: the model is {abs(entropy - loss):.2f} {side} them")
    print(
        f"  next-sentence accuracy  {row['eval_next_sentence_accuracy']:.1%}; "
        f"always giving the commoner answer: {nothing.commoner:.1%}"
    )
    if not math.isnan(preferred):
        shown = f"of a true and a random one it prefers the true one in {preferred:.1%} (chance: 50%)"
        print(f"{'':26}{shown}")


# ---------------------------------------------------------------------------------------------------------------------
# 6. All of it in order
# ---------------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    settings = read_settings(sys.argv[1:] if arguments is None else arguments, description=__doc__ or "")
    check(settings)
    options, others = settings.training, settings.processes
    if others.distributed:  # before anything else is asked of JAX
        processes.join(others.coordinator, others.num_processes, others.process_id)
    keep_compiled()
    layout = parallel.make_layout(options.parallel, fsdp=options.fsdp, tensor=options.tensor)
    parallel.check_batch(options.batch_size, layout, options.accumulate)
    if settings.run.plan:
        for line in report(run_spec(settings, layout), layout):
            print(line, flush=True)
        return
    output, steps = Path(settings.run.output), settings.training.steps
    how = {
        "resume": settings.run.resume,
        "overwrite": settings.run.overwrite,
        "may_change": MAY_CHANGE_ON_RESUME,
        "defaults": defaults_of(Settings),
    }
    check_run(output, as_record(settings), **how)
    reached = newest_whole_step(output / CHECKPOINTS) if settings.run.resume else None
    if reached is not None and reached > steps:
        raise ValueError(f"{output} is at step {reached} already, beyond --steps {steps}")

    with processes.first_process_first("the text is read"):
        documents, held_out_documents = read_documents(settings)
    tokenizer = make_tokenizer(settings, documents)
    with processes.first_process_first("the text is tokenized"):
        train_store, held_out = (
            tokenize_corpus(part, tokenizer, cache_dir=settings.text.cache_dir, language=settings.text.language)
            for part in (documents, held_out_documents)
        )
    print(
        f"corpus: {train_store.num_documents:,} documents, {train_store.num_sentences:,} sentences, "
        f"{train_store.num_tokens:,} tokens; held out: {held_out.num_documents:,} documents"
    )
    with held_out_batches(settings, held_out, tokenizer) as batches:
        nothing = KnowingNothing.of(batches)
    # A run that goes on must find the text it began with: its position in the data means nothing in another.
    record = as_record(settings) | {"text read": {"contents of the corpus": train_store.fingerprint[:16]}}
    if processes.is_first():
        begin_run(output, record, **how)
    processes.barrier("the run folder exists")
    watch = Watch(baseline=nothing.entropy, warmup_steps=settings.training.warmup_steps)
    pretrain(settings, layout, output, train_store, held_out, tokenizer, watch)
    if processes.is_first():
        with held_out_batches(settings, held_out, tokenizer) as batches:
            preferred = told_apart(output, batches)
        conclude(settings, output, nothing, preferred)
    processes.barrier("the summary is printed")
