"""Fine-tune with finetune.py and with the `Trainer` of transformers: compare scores and speed.

Both start from the same weights and read the same examples, with the same number of epochs, batch size and learning
rate. Scores are those after the last epoch on held-out data, one run per seed. Speed is that of training steps alone,
without compilation and evaluation: the sides alternate (A B A B ...) with `--steps` updates per turn, and each reports
the median of its turns. The Trainer pads texts and tagged sentences to the longest of a batch, and, when speed is
measured, questions to 384 tokens.

A third side, `Trainer-paired`, is the Trainer with finetune.py's initial model, new head included, and its batches:
then only the dropout masks differ in training, and with `--dropout 0` nothing does. It still reads the held-out data in
its own way, so questions have other windows.

    python benchmarks/finetune.py --task sst2 --data ../shared/data --seeds 3
    python benchmarks/finetune.py --task squad --data ../shared/data --fraction 0.1 --measure speed
    python benchmarks/finetune.py --task wnut17 --measure scores --sides bert_jax Trainer-paired --dropout 0 --seeds 1
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from common.inputs import minilm_folder
from common.pretraining_step import step_flop
from common.results import make_parser, record
from common.timing import PausedLoop, interleaved, matmul_rate, spread

from bert_jax.cli import programs
from bert_jax.config import BertConfig
from bert_jax.data.prefetch import Batch
from bert_jax.data.readers.questions import read_questions
from bert_jax.finetuning.model import DROPOUTS
from bert_jax.interop.huggingface import read_config

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Task:
    """A fine-tuning task and its settings.

    Attributes:
        command: subcommand of finetune.py.
        train: training examples, a file in the data folder.
        dev: held-out examples, a file in the data folder.
        trainer_task: name of the function in common/trainer.py.
        metric: name of the score in metrics.jsonl.
        separator: text between two examples of a file; None for JSON.
    """

    command: str
    train: str
    dev: str
    trainer_task: str
    metric: str
    learning_rate: float
    batch_size: int
    epochs: int
    separator: str | None = None

    @property
    def trainer_settings(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "batch_size": self.batch_size, "epochs": self.epochs}


TASKS = {
    "sst2": Task(
        "classification", "sst2/train.tsv", "sst2/dev.tsv", "classification", "eval_accuracy", 5e-5, 32, 3, "\n"
    ),
    "wnut17": Task("tokens", "wnut17/train.conll", "wnut17/dev.conll", "tagging", "eval_f1", 1e-4, 16, 3, "\n\n"),
    "squad": Task(
        "squad", "squad/train-v1.1.json", "squad/dev-v1.1.json", "question_answering", "eval_f1", 1e-4, 16, 2
    ),
    "squad2": Task(
        "squad", "squad/train-v2.0.json", "squad/dev-v2.0.json", "question_answering", "eval_best_f1", 1e-4, 16, 2
    ),
}


@dataclass(frozen=True)
class Comparison:
    """A task with its files, and the options of the command line."""

    name: str
    task: Task
    train: Path
    dev: Path
    options: argparse.Namespace

    def finetune_arguments(self, output: Path) -> list[str]:
        """Returns the command line of finetune.py."""
        flags = {
            "model": self.options.model,
            "train": self.train,
            "dev": self.dev,
            "output": output,
            "learning-rate": self.task.learning_rate,
            "batch-size": self.task.batch_size,
            "epochs": self.task.epochs,
        }
        if self.options.dropout is not None:
            flags["dropout"] = self.options.dropout
        return [self.task.command, *(str(part) for name, value in flags.items() for part in (f"--{name}", value))]

    def trainer_task(self) -> Any:
        """Returns the task for the Trainer."""
        from common import trainer

        task = getattr(trainer, self.task.trainer_task)(self.options.model, str(self.train), str(self.dev))
        rates = {} if self.options.dropout is None else dict.fromkeys(DROPOUTS, self.options.dropout)
        return replace(task, options=task.options | rates)

    def description(self) -> str:
        dropout = "" if self.options.dropout is None else f", dropout {self.options.dropout:g}"
        return (
            f"{short_name(self.options.model)}; {self.options.fraction:.0%} of the training examples, "
            f"{self.options.dev_fraction:.0%} of the held-out examples; {self.task.epochs} epochs, "
            f"batch size {self.task.batch_size}, learning rate {self.task.learning_rate:g}{dropout}"
        )


def short_name(model: str) -> str:
    """Returns the last two parts of a model's path, which distinguish models."""
    return "-".join(Path(model).parts[-2:])


# Data: the same sample for all sides


def sample_examples(source: Path, fraction: float, separator: str | None, folder: Path) -> Path:
    """Writes a random sample of a file's examples to `folder`, the same in every call; returns its path."""
    if fraction >= 1:
        return source
    random = np.random.Generator(np.random.Philox(0))

    def choose(count: int) -> list[int]:
        return sorted(random.permutation(count)[: round(fraction * count)].tolist())

    sample = _sample_questions(source, choose) if separator is None else _sample_lines(source, separator, choose)
    target = folder / f"{fraction:g}-{source.name}"
    target.write_text(sample, encoding="utf-8")
    return target


def _sample_questions(source: Path, choose: Callable[[int], list[int]]) -> str:
    questions = read_questions(str(source))
    paragraphs = []
    for index in choose(len(questions)):
        question = questions[index]
        answers = [{"text": answer.text, "answer_start": answer.start} for answer in question.answers]
        entry = {
            "id": question.id,
            "question": question.question,
            "answers": answers,
            "is_impossible": question.impossible,
        }
        paragraphs.append({"context": question.context, "qas": [entry]})
    return json.dumps({"version": "", "data": [{"title": "", "paragraphs": paragraphs}]})


def _sample_lines(source: Path, separator: str, choose: Callable[[int], list[int]]) -> str:
    text = "\n".join(line.strip() and line for line in source.read_text(encoding="utf-8").splitlines())
    header = text.partition("\n")[0] + "\n" if separator == "\n" else ""
    examples = [example for example in text.removeprefix(header).split(separator) if example.strip()]
    return header + separator.join(examples[index] for index in choose(len(examples))) + "\n"


# Scores


class TrainingReached(Exception):
    """Ends a run of finetune.py where its training loop would start."""


def run_instead_of_training(run: Callable[..., None], arguments: list[str]) -> None:
    """Runs finetune.py up to its training loop, and calls `run` with the loop's arguments instead."""

    def train(*positional: Any, **keywords: Any) -> None:
        run(*positional, **keywords)
        raise TrainingReached

    with mock.patch("bert_jax.finetuning.trainer.train", train), contextlib.suppress(TrainingReached):
        programs.finetune([*arguments, "--overwrite", "--quiet"])


def package_score(comparison: Comparison, seed: int, output: Path) -> float:
    """Runs finetune.py; returns the score after the last epoch."""
    command = [sys.executable, str(ROOT / "finetune.py"), *comparison.finetune_arguments(output)]
    subprocess.run([*command, "--seed", str(seed), "--overwrite", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    metric = comparison.task.metric
    return [row[metric] for row in rows if metric in row][-1]


def trainer_score(comparison: Comparison, seed: int, output: Path) -> float:
    """Runs the Trainer; returns the score after the last epoch."""
    from common import trainer

    options = comparison.options
    settings = comparison.task.trainer_settings
    task = comparison.trainer_task()
    return trainer.train_and_score(task, options.model, options.threads, **settings, seed=seed, output=str(output))


def initial_model_and_batches(comparison: Comparison, seed: int, output: Path) -> list[Batch]:
    """Saves finetune.py's initial model, new head included, to `output`; returns the batches of all epochs."""
    collected: list[Batch] = []

    def collect(state, batches, *, evaluate, steps, **others) -> None:
        evaluate(state)  # the first evaluation is the best so far, so the model is saved
        collected.extend(next(batches) for _ in range(steps))

    run_instead_of_training(collect, [*comparison.finetune_arguments(output), "--seed", str(seed)])
    return collected


def paired_score(comparison: Comparison, seed: int, output: Path) -> float:
    """Runs the Trainer with finetune.py's initial model and batches; returns the score after the last batch."""
    from common import trainer

    batches = initial_model_and_batches(comparison, seed, output)
    task = comparison.trainer_task()
    saved_classes = read_config(output)[0].label_names
    classes = tuple(task.options.get("id2label", {}).values())
    if classes and classes != saved_classes:
        raise SystemExit(f"classes differ: Trainer {', '.join(classes)}; finetune.py {', '.join(saved_classes)}")
    settings = comparison.task.trainer_settings | {"epochs": 1}  # the batches are those of all epochs
    threads = comparison.options.threads
    return trainer.train_and_score(task, str(output), threads, batches, **settings, seed=seed, output=str(output))


SIDES = {"bert_jax": package_score, "Trainer": trainer_score, "Trainer-paired": paired_score}


def scores_by_side(comparison: Comparison) -> dict[str, list[float]]:
    """Returns each side's score for each seed; scores in the folder from earlier calls are reused."""
    options = comparison.options
    task = comparison.task
    settings = f"{short_name(options.model)}-{options.fraction:g}-{options.dev_fraction:g}"
    settings += f"-{task.epochs}-{task.batch_size}-{task.learning_rate:g}"
    if options.dropout is not None:
        settings += f"-{options.dropout:g}"
    scores: dict[str, list[float]] = {side: [] for side in options.sides}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for side in options.sides:
            folder = options.folder / comparison.name / settings / side / str(seed)
            file = folder / "score.json"
            if not file.exists():
                folder.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(SIDES[side](comparison, seed, folder / "run")) + "\n", encoding="utf-8")
            scores[side].append(json.loads(file.read_text(encoding="utf-8")))
            print(f"{comparison.name}, {side}, seed {seed}: {scores[side][-1]:.4f}", flush=True)
    return scores


def format_scores(task: Task, scores: dict[str, list[float]]) -> str:
    metric = task.metric.removeprefix("eval_").replace("_", " ")
    lines = [f"| | {metric} by seed | mean ± standard deviation |", "|---|---|---|"]
    for side, values in scores.items():
        by_seed = ", ".join(f"{100 * value:.1f}" for value in values)
        deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {side} | {by_seed} | {100 * statistics.mean(values):.1f}{deviation} |")
    return "\n".join(lines)


# Speed


def trainer_loop(comparison: Comparison) -> PausedLoop:
    """Returns the Trainer's training loop; a turn is `--steps` updates."""
    import torch
    from common import trainer

    options = comparison.options

    def loop(begin: Callable, end: Callable) -> None:
        torch.set_num_threads(options.threads)
        trainer.make_trainer(
            comparison.trainer_task(),
            options.model,
            **comparison.task.trainer_settings | {"epochs": 1},
            seed=0,
            output=str(options.folder / "speed"),
            max_steps=options.steps * (options.rounds + 1),
            callback=trainer.turns(options.steps, begin, end),
        ).train()

    return PausedLoop(loop)


def sequence_flop(config: BertConfig, attention_mask: np.ndarray) -> float:
    """Returns the FLOP of the matrix multiplications that the sequences in rows [B, T] need, without padding."""
    lengths = (np.bincount(row)[1:] for row in attention_mask)
    return sum(step_flop(config, 1, int(length), 0) for of_row in lengths for length in of_row)


def measure_speed(comparison: Comparison) -> tuple[dict[str, list[float]], float]:
    """Returns each side's examples/s in every round, and the FLOP per example; an example of SQuAD is a window.

    bert_jax runs the state, the step and the batches that finetune.py has prepared for its training loop. The first
    round, in which its shapes are compiled, is left out.
    """
    options = comparison.options
    config = read_config(Path(options.model))[0]
    seconds: dict[str, list[float]] = {}
    shapes: Counter[tuple[int, ...]] = Counter()
    flop: list[float] = []

    def race(state, batches, *, step, device_put, **others) -> None:
        def turn() -> None:
            nonlocal state
            for _ in range(options.steps):
                batch = next(batches)
                mask = batch["attention_mask"]
                shapes[batch["input_ids"].shape] += 1
                flop.append(sequence_flop(config, mask.reshape(-1, mask.shape[-1])))
                state, metrics = step(state, device_put(batch))
            jax.block_until_ready(metrics)

        candidates = {"bert_jax": turn}
        if "Trainer" in options.sides:
            candidates["Trainer"] = trainer_loop(comparison)
        seconds.update(interleaved(candidates, options.rounds))

    run_instead_of_training(race, comparison.finetune_arguments(options.folder / "speed"))
    print("bert_jax: " + ", ".join(f"{n} x {shape[0]} rows of {shape[-1]}" for shape, n in sorted(shapes.items())))
    examples = options.steps * comparison.task.batch_size
    rates = {side: [examples / turn for turn in turns] for side, turns in seconds.items()}
    return rates, statistics.mean(flop) / comparison.task.batch_size


def format_speed(rates: dict[str, list[float]], flop: float) -> str:
    machine_rate = matmul_rate()
    lines = [
        "| | examples/s, median (min to max) | of the matmul rate | speedup over the Trainer |",
        "|---|---|---|---|",
    ]
    for side, values in rates.items():
        median = statistics.median(values)
        speedup = f"{median / statistics.median(rates['Trainer']):.2f}x" if "Trainer" in rates else ""
        lines.append(f"| {side} | {spread(values, 1)} | {flop * median / 1e9 / machine_rate:.0%} | {speedup} |")
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--task", choices=[*TASKS, "all"], default="sst2")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--model", help="a folder in Hugging Face's layout; default: MiniLM, installed by `make live`")
    parser.add_argument("--fraction", type=float, default=1.0, help="fraction of the training examples to use")
    parser.add_argument("--dev-fraction", type=float, default=1.0, help="fraction of the held-out examples to use")
    parser.add_argument("--epochs", type=int, help="default: the task's")
    parser.add_argument("--learning-rate", type=float, help="default: the task's")
    parser.add_argument("--dropout", type=float, help="dropout of all sides; default: the model's")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds for scores (default: 3)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--measure", choices=["scores", "speed", "both"], default="both")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=["bert_jax", "Trainer"])
    parser.add_argument("--steps", type=int, default=10, help="updates per turn, for speed (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side, for speed (default: 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "benchmark", help="keeps runs and scores")
    options = parser.parse_args()
    if options.measure != "scores" and not {"bert_jax"} <= {*options.sides} <= {"bert_jax", "Trainer"}:
        parser.error("speed needs --sides bert_jax or bert_jax Trainer; use --measure scores for other sides")
    options.model = options.model or minilm_folder()
    return options


def main() -> None:
    options = parse_options()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in TASKS if options.task == "all" else (options.task,):
        task = TASKS[name]
        task = replace(
            task,
            epochs=options.epochs or task.epochs,
            learning_rate=options.learning_rate or task.learning_rate,
        )
        train = sample_examples(options.data / task.train, options.fraction, task.separator, options.folder)
        dev = sample_examples(options.data / task.dev, options.dev_fraction, task.separator, options.folder)
        comparison = Comparison(name, task, train, dev, options)
        if options.measure != "speed":
            table = format_scores(task, scores_by_side(comparison))
            paired = ", paired" if "Trainer-paired" in options.sides else ""
            record(f"Fine-tuning, scores{paired}: {name}", f"{comparison.description()}\n\n{table}")
        if options.measure != "scores":
            table = format_speed(*measure_speed(comparison))
            record(f"Fine-tuning, speed: {name}", f"{comparison.description()}\n\n{table}")


if __name__ == "__main__":
    main()
