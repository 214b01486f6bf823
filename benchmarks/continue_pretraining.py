"""Continue pretraining on another domain: does it pay, and how does `transformers` by its `run_mlm.py` compare?

A model of film reviews continues on Wikipedia's articles (the paragraphs of SQuAD) with masked words alone. All sides
have the same text, steps, rows per step, learning rate with its schedule, and optimizer (AdamW):

    start       the model itself, without training
    bert_jax    `pretrain` from the model: runs of sentences, packed
    Trainer     the Trainer of transformers from the same weights: blocks of concatenated paragraphs, see common/run_mlm
    new-words   bert_jax with new words of the articles in the vocabulary
    scratch     bert_jax from random weights, with the model's architecture and vocabulary

The weights after the last step of every side are evaluated by bert_jax on the same masked rows of held-out articles. A
loss per token cannot be compared between vocabularies, so it is also given per word (loss x tokens per word). There,
the pieces of a word are easier to predict when its other pieces are visible; the last column masks all of them.

Speed is that of training steps alone: bert_jax and the Trainer alternate (A B A B ...) with `--turn` steps each.
Padding is not counted; the Trainer's blocks have none.

    python benchmarks/continue_pretraining.py --model runs/demo --data ../shared/data
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.held_out import HeldOutLoss, held_out_loss
from common.inputs import CACHE, write_articles
from common.pretraining_loop import TrainingLoop, with_training_loops
from common.results import make_parser, record
from common.timing import PausedLoop, interleaved, spread

from bert_jax.data.readers.sources import Texts
from bert_jax.interop.loading import load
from bert_jax.pretraining import make_settings, pretrain
from bert_jax.pretraining.corpus import Documents
from bert_jax.pretraining.settings import Settings
from bert_jax.pretraining.source import source_config

ROOT = Path(__file__).parents[1]
WARMUP = 0.1  # fraction of the steps


def settings_of(side: str, options: argparse.Namespace, seed: int, output: Path) -> Settings:
    """Returns the settings of a run of bert_jax, with which the Trainer's agree."""
    start = str(options.folder / "start")
    origin: dict[str, Any] = {"model": start}
    if side == "scratch":
        origin = {"preset": "tiny", "tokenizer": start}
    elif side == "new-words":
        origin["add_tokens"] = options.add_tokens
    settings = make_settings(
        **origin,
        corpus=(str(options.folder / "train.txt"),),
        cache_dir=str(CACHE),
        output=str(output),
        overwrite=True,
        quiet=True,
        seed=seed,
        objective="mlm",
        max_length=options.length,
        batch_size=options.rows,
        masked_share=options.masked_share,
        steps=options.steps,
        optimizer="adamw",
        learning_rate=options.learning_rate,
        schedule="linear",
        warmup_steps=round(WARMUP * options.steps),
        decay_steps=options.steps,
        eval_every=0,
        checkpoint_every=0,
    )
    return replace(settings, model=source_config(start)) if side == "scratch" else settings


def train_with_bert_jax(side: str, options: argparse.Namespace, seed: int, output: Path) -> None:
    pretrain(settings_of(side, options, seed, output))


def train_with_trainer(side: str, options: argparse.Namespace, seed: int, output: Path) -> None:
    trainer, _ = make_trainer(options, seed, output)
    trainer.train()
    trainer.save_model(str(output))
    load(options.folder / "start").tokenizer.save(output)


def make_trainer(options: argparse.Namespace, seed: int, output: Path, callback: Any = None) -> tuple[Any, float]:
    """Returns the Trainer, and the tokens of an average step: the last batch of an epoch is smaller."""
    import torch
    from common import trainer
    from common.run_mlm import masked_words

    torch.set_num_threads(options.threads)
    documents = Documents.read(settings_of("bert_jax", options, seed, output)).train
    paragraphs = [line for text in Texts(documents) for line in text.splitlines()]
    start = str(options.folder / "start")
    task = masked_words(start, paragraphs, max_length=options.length, masked_share=options.masked_share)
    made = trainer.make_trainer(
        task,
        start,
        learning_rate=options.learning_rate,
        batch_size=options.rows,
        epochs=1,
        seed=seed,
        output=str(output),
        max_steps=options.steps,
        callback=callback,
    )
    batches = -(-len(task.train) // options.rows)
    return made, len(task.train) * options.length / batches


Training = Callable[[str, argparse.Namespace, int, Path], None]
SIDES: dict[str, Training | None] = {  # None: no training
    "start": None,
    "bert_jax": train_with_bert_jax,
    "Trainer": train_with_trainer,
    "new-words": train_with_bert_jax,
    "scratch": train_with_bert_jax,
}


# Scores


def scores_by_side(options: argparse.Namespace) -> dict[str, list[HeldOutLoss]]:
    """Returns the loss of each side for each seed; those in the folder from earlier calls are reused."""
    name = f"{options.steps}-{options.rows}-{options.length}-{options.learning_rate:g}-{options.add_tokens}"
    scores: dict[str, list[HeldOutLoss]] = {side: [] for side in options.sides}
    for seed in range(options.seeds):
        for side in options.sides:
            if SIDES[side] is None and seed:
                continue
            folder = options.folder / name / side / str(seed)
            file = folder / "scores.json"
            if not file.exists():
                folder.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(train_and_score(side, options, seed, folder / "run")._asdict()) + "\n")
            scores[side].append(HeldOutLoss(**json.loads(file.read_text(encoding="utf-8"))))
            print(f"{side}, seed {seed}: held-out loss {scores[side][-1].loss:.4f}", flush=True)
    return scores


def train_and_score(side: str, options: argparse.Namespace, seed: int, output: Path) -> HeldOutLoss:
    train = SIDES[side]
    if train is not None:
        train(side, options, seed, output)
    model = output if train else options.folder / "start"
    corpus = options.folder / "held-out.txt"
    return held_out_loss(model, corpus, max_length=options.length, masked_share=options.masked_share)


def format_scores(scores: dict[str, list[HeldOutLoss]]) -> list[str]:
    """Returns the lines of a Markdown table, one row per side."""
    lines = [
        "| | held-out loss per token, by seed | mean ± standard deviation | tokens per word | nats per word "
        "| nats per word, all its pieces masked |",
        "|---|---|---|---|---|---|",
    ]
    for side, of_seeds in scores.items():
        losses = [score.loss for score in of_seeds]
        per_word = [score.loss * score.tokens_per_word for score in of_seeds]
        whole_words = [score.whole_words * score.tokens_per_word for score in of_seeds]
        tokens = statistics.mean(score.tokens_per_word for score in of_seeds)
        by_seed = ", ".join(f"{loss:.3f}" for loss in losses)
        cells = [side, by_seed, _mean(losses), f"{tokens:.3f}", _mean(per_word), _mean(whole_words)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _mean(values: list[float]) -> str:
    """Formats values as mean ± standard deviation, or a single value alone."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


# Speed


def measure_speed(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Returns the real tokens/s of each round, and the real tokens of an average step."""
    output = options.folder / "speed"
    rates: dict[str, list[float]] = {}
    tokens: dict[str, float] = {}

    def race(loops: dict[str, TrainingLoop]) -> None:
        candidates: dict[str, Callable[[], None]] = {"bert_jax": loops["bert_jax"]}
        if "Trainer" in options.sides:
            candidates["Trainer"] = trainer_loop(options, tokens)
        seconds = interleaved(candidates, options.rounds)
        tokens["bert_jax"] = loops["bert_jax"].tokens / loops["bert_jax"].taken
        for side, turns in seconds.items():
            rates[side] = [options.turn * tokens[side] / turn for turn in turns]

    with_training_loops({"bert_jax": settings_of("bert_jax", options, 0, output / "bert_jax")}, options.turn, race)
    return rates, tokens


def trainer_loop(options: argparse.Namespace, tokens: dict[str, float]) -> PausedLoop:
    """Returns the Trainer's loop; puts the tokens of an average step into `tokens` before its first turn ends."""

    def loop(begin: Callable, end: Callable) -> None:
        from common.trainer import turns

        of_speed = argparse.Namespace(**{**vars(options), "steps": options.turn * (options.rounds + 1)})
        output = options.folder / "speed" / "Trainer"
        trainer, tokens["Trainer"] = make_trainer(of_speed, 0, output, turns(options.turn, begin, end))
        trainer.train()

    return PausedLoop(loop)


def format_speed(rates: dict[str, list[float]], tokens: dict[str, float], options: argparse.Namespace) -> list[str]:
    lines = ["| | real tokens/s, median (min to max) | row filled | speedup of bert_jax |", "|---|---|---|---|"]
    ours = statistics.median(rates["bert_jax"])
    for side, values in rates.items():
        filled = tokens[side] / (options.rows * options.length)
        speedup = "" if side == "bert_jax" else f"{ours / statistics.median(values):.2f}x"
        lines.append(f"| {side} | {spread(values, 0)} | {filled:.1%} | {speedup} |")
    return lines


def parse_options() -> argparse.Namespace:
    parser = make_parser(__doc__, rows=32, length=64)
    parser.add_argument("--model", default="runs/demo", help="the start (default: runs/demo, which `make train` makes)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--steps", type=int, default=400, help="of every training (default: 400)")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--masked-share", type=float, default=0.15)
    parser.add_argument("--add-tokens", type=int, default=500, help="new words of the side new-words (default: 500)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds for scores (default: 3)")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--measure", choices=["scores", "speed", "both"], default="both")
    parser.add_argument("--turn", type=int, default=20, help="steps per turn, for speed (default: 20)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side, for speed (default: 7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "benchmark" / "continue", help="keeps the runs")
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> None:
    """Writes the articles and the start model in Hugging Face's layout to the folder."""
    options.folder.mkdir(parents=True, exist_ok=True)
    write_articles(options.data / "squad" / "train-v1.1.json", options.folder / "train.txt")
    write_articles(options.data / "squad" / "dev-v1.1.json", options.folder / "held-out.txt")
    load(options.model).save_pretrained(options.folder / "start")


def main() -> None:
    options = parse_options()
    prepare(options)
    settings = (
        f"from {Path(options.model).name}, {options.steps} steps of {options.rows} rows of {options.length} tokens, "
        f"{options.masked_share:.0%} masked, AdamW, learning rate {options.learning_rate:g} after a warm-up of "
        f"{WARMUP:.0%}, linear decay"
    )
    if options.measure != "speed":
        table = format_scores(scores_by_side(options))
        record("Continued pretraining, scores", "\n".join([settings, "", *table]))
    if options.measure != "scores":
        table = format_speed(*measure_speed(options), options)
        record("Continued pretraining, speed", "\n".join([settings, "", *table]))


if __name__ == "__main__":
    main()
