"""Fine-tuning, here and by the `Trainer` of transformers, side by side: what is learned, and how fast.

Both start from the same weights and see the same examples, in as many epochs, in batches as large, at the same rate.
Scores are those after the last epoch on data that was held out, one run a seed. Speed is that of training alone, no
compilation and no evaluation: the two take turns (A B A B ...), so many updates a turn, and each reports the median of
its turns. Theirs pads texts and tagged sentences to the longest of a batch, and, in the race, questions to 384 tokens.

A third side, `Trainer-paired`, is the Trainer given the model that finetune.py sets out from, new head and all, and the
batches that it makes: dropout's masks are then all that differs in training, and with `--dropout 0` nothing does. It
still reads what is held out in its own way, so questions in other windows.

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
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from common.pretraining_step import matrix_flop
from common.timing import interleaved, matmul_rate, minilm_folder, record, spread

from bert_jax.config import BertConfig
from bert_jax.data.prefetch import Batch
from bert_jax.data.readers.questions import read_questions
from bert_jax.finetuning.model import DROPOUTS
from bert_jax.interop.huggingface import read_config

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Task:
    """What is trained, and how.

    Attributes:
        command: of finetune.py.
        train, dev: files of the shared data.
        peer: the function of trainer.py.
        metric: how finetune.py calls the score.
        separator: what stands between examples in a file; none for JSON.
    """

    command: str
    train: str
    dev: str
    peer: str
    metric: str
    learning_rate: float
    batch_size: int
    epochs: int
    separator: str | None = None


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


# What both sides are given


def share(source: Path, fraction: float, separator: str | None, folder: Path) -> Path:
    """Writes a random share of a file's examples, always the same."""
    if fraction >= 1:
        return source
    target = folder / f"{fraction:g}-{source.name}"
    text = source.read_text(encoding="utf-8")
    random = np.random.Generator(np.random.Philox(0))
    if separator is None:
        questions, _ = read_questions(str(source))
        chosen = random.permutation(len(questions))[: round(fraction * len(questions))]
        paragraphs = []
        for one in (questions[i] for i in sorted(chosen.tolist())):
            answers = [{"text": answer.text, "answer_start": answer.start} for answer in one.answers]
            asked = {"id": one.id, "question": one.question, "answers": answers, "is_impossible": one.impossible}
            paragraphs.append({"context": one.context, "qas": [asked]})
        shared = json.dumps({"version": "", "data": [{"title": "", "paragraphs": paragraphs}]})
    else:
        lines = "\n".join(line.strip() and line for line in text.splitlines())
        header = lines.partition("\n")[0] + "\n" if separator == "\n" else ""
        examples = [example for example in lines.removeprefix(header).split(separator) if example.strip()]
        chosen = random.permutation(len(examples))[: round(fraction * len(examples))]
        shared = header + separator.join(examples[i] for i in sorted(chosen.tolist())) + "\n"
    target.write_text(shared, encoding="utf-8")
    return target


def arguments_of(task: Task, options: argparse.Namespace, files: tuple[Path, Path], output: Path) -> list[str]:
    """Returns the command line of finetune.py."""
    settings = {
        "model": options.model,
        "train": files[0],
        "dev": files[1],
        "output": output,
        "learning-rate": task.learning_rate,
        "batch-size": task.batch_size,
        "epochs": task.epochs,
    }
    if options.dropout is not None:
        settings["dropout"] = options.dropout
    return [task.command, *(str(part) for name, value in settings.items() for part in (f"--{name}", value))]


def named(model: str) -> str:
    """Returns the end of a model's path, which tells models apart."""
    return "-".join(Path(model).parts[-2:])


def peer_of(task: Task, options: argparse.Namespace, files: tuple[Path, Path]) -> Any:
    """Returns the task as the Trainer has it."""
    from common import trainer

    peer = getattr(trainer, task.peer)(options.model, *map(str, files))
    rates = {} if options.dropout is None else dict.fromkeys(DROPOUTS, options.dropout)
    return replace(peer, options=peer.options | rates)


def settings_of(task: Task) -> dict[str, Any]:
    """Returns how the Trainer trains."""
    return {"learning_rate": task.learning_rate, "batch_size": task.batch_size, "epochs": task.epochs}


class Enough(Exception):
    """Ends a run of finetune.py which has come to where it trains."""


def instead_of_training(act: Callable[..., None], arguments: list[str]) -> None:
    """Runs finetune.py up to where it would train, and there `act` with what its loop would be given."""
    from bert_jax.finetuning import program

    def train(*given: Any, **options: Any) -> None:
        act(*given, **options)
        raise Enough

    with mock.patch.object(program, "train", train), contextlib.suppress(Enough):
        program.main([*arguments, "--overwrite", "--quiet"])


# What is learned


def our_score(task: Task, options: argparse.Namespace, files: tuple[Path, Path], seed: int, output: Path) -> float:
    """Runs finetune.py; returns the score after the last epoch."""
    command = [sys.executable, str(ROOT / "finetune.py"), *arguments_of(task, options, files, output)]
    subprocess.run([*command, "--seed", str(seed), "--overwrite", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row[task.metric] for row in rows if task.metric in row][-1]


def their_score(task: Task, options: argparse.Namespace, files: tuple[Path, Path], seed: int, output: Path) -> float:
    """Runs the Trainer; returns the score after the last epoch."""
    from common import trainer

    peer = peer_of(task, options, files)
    return trainer.score(peer, options.model, options.threads, **settings_of(task), seed=seed, output=str(output))


def paired_score(task: Task, options: argparse.Namespace, files: tuple[Path, Path], seed: int, output: Path) -> float:
    """Runs the Trainer from the model and on the batches that finetune.py has; returns the score after the last one."""
    from common import trainer

    made: list[Batch] = []

    def take(state, batches, *, evaluate, steps, **others) -> None:
        evaluate(state)  # the best so far, so it is saved
        made.extend(next(batches) for _ in range(steps))

    instead_of_training(take, [*arguments_of(task, options, files, output), "--seed", str(seed)])
    peer, given = peer_of(task, options, files), read_config(output)[0].label_names
    if (names := peer.options.get("id2label")) and tuple(names.values()) != given:
        raise SystemExit(f"classes of the Trainer: {', '.join(names.values())}; of finetune.py: {', '.join(given)}")
    settings = settings_of(task) | {"epochs": 1}  # of all batches
    where = {"source": str(output), "output": str(output)}
    return trainer.score(peer, threads=options.threads, batches=made, **settings, **where, seed=seed)


SIDES = {"bert_jax": our_score, "Trainer": their_score, "Trainer-paired": paired_score}


def scores(name: str, task: Task, options: argparse.Namespace, files: tuple[Path, Path]) -> dict[str, list[float]]:
    """Returns each side's score by seed; those that an earlier call left in the folder are not made again."""
    found: dict[str, list[float]] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for side in options.sides:
            shares = f"{options.fraction:g}-{options.dev_fraction:g}"
            settings = f"{named(options.model)}-{shares}-{task.epochs}-{task.batch_size}-{task.learning_rate:g}"
            settings += "" if options.dropout is None else f"-{options.dropout:g}"
            folder = options.folder / name / settings / side / str(seed)
            kept = folder / "score.json"
            if not kept.exists():
                folder.mkdir(parents=True, exist_ok=True)
                value = SIDES[side](task, options, files, seed, folder / "run")
                kept.write_text(json.dumps(value) + "\n", encoding="utf-8")
            found.setdefault(side, []).append(json.loads(kept.read_text(encoding="utf-8")))
            print(f"{name}, {side}, seed {seed}: {found[side][-1]:.4f}", flush=True)
    return found


# How fast


class Turns:
    """A training loop in a thread of its own, which goes on when it is called, and waits after so many updates.

    Args:
        loop: trains; is given `begin` and `end` to call before and after each turn.
    """

    def __init__(self, loop: Callable[[Callable, Callable], None]) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None
        threading.Thread(target=self.run, args=(loop,), daemon=True).start()

    def run(self, loop: Callable[[Callable, Callable], None]) -> None:
        try:
            loop(self.go.acquire, self.done.release)
        except BaseException as error:
            self.error = error
            self.done.release()

    def __call__(self) -> None:
        self.go.release()
        self.done.acquire()
        if self.error is not None:
            raise self.error


def their_turns(task: Task, options: argparse.Namespace, files: tuple[Path, Path]) -> Turns:
    """Returns the Trainer's loop."""
    import torch
    import transformers
    from common import trainer

    def loop(begin: Callable, end: Callable) -> None:
        class Turn(transformers.TrainerCallback):
            def on_step_begin(self, args, state, control, **others):
                if state.global_step % options.steps == 0:
                    begin()

            def on_step_end(self, args, state, control, **others):
                if state.global_step % options.steps == 0:
                    end()

        torch.set_num_threads(options.threads)
        peer = peer_of(task, options, files)
        settings = settings_of(task) | {"epochs": 1}
        output, updates = str(options.folder / "speed"), options.steps * (options.rounds + 1)
        trainer.make_trainer(
            peer, options.model, **settings, seed=0, output=output, max_steps=updates, callback=Turn()
        ).train()

    return Turns(loop)


def needed_flop(config: BertConfig, attention_mask: np.ndarray) -> float:
    """Returns the operations of the matrix products that the sequences of rows [B, T] ask for, padding none."""
    lengths = (np.bincount(row)[1:] for row in attention_mask)
    return sum(matrix_flop(config, 1, int(length), 0) for of_row in lengths for length in of_row)


def speeds(task: Task, options: argparse.Namespace, files: tuple[Path, Path]) -> tuple[dict[str, list[float]], float]:
    """Returns each side's examples a second, by round, and the operations that an example asks for.

    An example of questions is a window.

    The race is run where finetune.py would train, with the state, the step and the batches it has made. The first
    turns, in which our shapes are compiled, do not count.
    """
    theirs = {"Trainer": their_turns(task, options, files)} if "Trainer" in options.sides else {}
    found: dict[str, list[float]] = {}
    shapes: Counter[tuple[int, ...]] = Counter()
    flop: list[float] = []
    config = read_config(Path(options.model))[0]

    def race(state, batches, *, step, device_put, **others) -> None:
        def ours() -> None:
            nonlocal state
            for _ in range(options.steps):
                batch = next(batches)
                shapes[batch["input_ids"].shape] += 1
                flop.append(needed_flop(config, batch["attention_mask"].reshape(-1, batch["attention_mask"].shape[-1])))
                state, figures = step(state, device_put(batch))
            jax.block_until_ready(figures)

        ours_too = {"bert_jax": ours} if "bert_jax" in options.sides else {}
        found.update(interleaved({**ours_too, **theirs}, options.rounds))

    instead_of_training(race, arguments_of(task, options, files, options.folder / "speed"))
    print("bert_jax: " + ", ".join(f"{n} x {shape[0]} rows of {shape[-1]}" for shape, n in sorted(shapes.items())))
    examples = options.steps * task.batch_size
    rates = {side: [examples / seconds for seconds in some] for side, some in found.items()}
    return rates, statistics.mean(flop) / task.batch_size


# The tables


def setting(task: Task, options: argparse.Namespace) -> str:
    return (
        f"{named(options.model)}; {options.fraction:.0%} of the training examples, "
        f"{options.dev_fraction:.0%} of those held out; {task.epochs} epochs, batch {task.batch_size}, "
        f"rate {task.learning_rate:g}" + ("" if options.dropout is None else f", dropout {options.dropout:g}")
    )


def scores_table(task: Task, learned: dict[str, list[float]]) -> str:
    metric = task.metric.removeprefix("eval_").replace("_", " ")
    lines = [f"| | {metric} by seed | mean ± deviation |", "|---|---|---|"]
    for side, values in learned.items():
        each = ", ".join(f"{100 * value:.1f}" for value in values)
        deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {side} | {each} | {100 * statistics.mean(values):.1f}{deviation} |")
    return "\n".join(lines)


def speed_table(fast: dict[str, list[float]], flop: float) -> str:
    machine_rate = matmul_rate()
    lines = [
        "| | examples/s, median (min to max) | of the machine's matrix products | as fast as the Trainer |",
        "|---|---|---|---|",
    ]
    for side, rates in fast.items():
        median = statistics.median(rates)
        ratio = f"{median / statistics.median(fast['Trainer']):.2f}x" if "Trainer" in fast else ""
        lines.append(f"| {side} | {spread(rates, 1)} | {flop * median / 1e9 / machine_rate:.0%} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*TASKS, "all"], default="sst2")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", help="a folder in Hugging Face's layout; default: MiniLM, a package of `make live`")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training examples")
    parser.add_argument("--dev-fraction", type=float, default=1.0, help="of the examples held out")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--dropout", type=float, help="of all sides; default: the model's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--measure", choices=["scores", "speed", "both"], default="both")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=["bert_jax", "Trainer"])
    parser.add_argument("--steps", type=int, default=10, help="updates a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "benchmark", help="keeps runs and scores")
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = parser.parse_args()
    if options.measure != "scores" and not {"bert_jax"} <= {*options.sides} <= {"bert_jax", "Trainer"}:
        parser.error("speed is that of bert_jax, with the Trainer beside it or not; else --measure scores")
    options.model = options.model or minilm_folder()
    options.folder.mkdir(parents=True, exist_ok=True)

    for name in TASKS if options.task == "all" else (options.task,):
        task = TASKS[name]
        task = replace(task, epochs=options.epochs or task.epochs)
        task = replace(task, learning_rate=options.learning_rate or task.learning_rate)
        train = share(options.data / task.train, options.fraction, task.separator, options.folder)
        dev = share(options.data / task.dev, options.dev_fraction, task.separator, options.folder)
        if options.measure != "speed":
            learned = scores(name, task, options, (train, dev))
            paired = ", paired" if "Trainer-paired" in options.sides else ""
            record(f"Fine-tuning, scores{paired}: {name}", f"{setting(task, options)}\n\n{scores_table(task, learned)}")
        if options.measure != "scores":
            fast, flop = speeds(task, options, (train, dev))
            record(f"Fine-tuning, speed: {name}", f"{setting(task, options)}\n\n{speed_table(fast, flop)}")


if __name__ == "__main__":
    main()
