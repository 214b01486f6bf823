"""Fine-tuning with the `Trainer` of transformers, as its official examples `run_glue.py`, `run_ner.py`, `run_qa.py` do.

By default texts and tagged sentences are padded to the longest of their batch and questions to 384 tokens, as in those
examples. When scores are measured and not speed, questions too are padded to the longest, which changes only rounding.
The learning-rate schedule is that of finetune.py. Predictions are scored by this project's metrics, which agree with
the official scripts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers

from bert_jax.data.finetuning.answers import WindowLogits, predict_answers
from bert_jax.data.prefetch import Batch
from bert_jax.data.readers.examples import Question
from bert_jax.data.readers.questions import read_questions
from bert_jax.data.readers.tagged import read_tagged
from bert_jax.data.readers.texts import read_texts
from bert_jax.metrics.entities import count_entities, total
from bert_jax.metrics.squad import best_thresholds, score_answers, totals
from bert_jax.training.optimizers import make_schedule

IGNORED_LABEL = -100
Features = list[dict[str, Any]]


@dataclass(frozen=True)
class TrainerTask:
    """A task as transformers trains it.

    Attributes:
        model: the class to load.
        options: keyword arguments for loading it, such as the names of the classes.
        train: encoded training examples.
        dev: encoded held-out examples.
        collator: pads features and makes a batch of them.
        score: computes the metric from the logits for `dev`.
    """

    model: Any
    options: dict[str, Any]
    train: Features
    dev: Features
    collator: Any
    score: Callable[[Any], float]


class Trainer(transformers.Trainer):
    """The Trainer with the learning rate of finetune.py at each step.

    BERT's linear decay to zero starts at step 0, the Trainer's own at the end of the warm-up; the sum of the Trainer's
    own rates would be a tenth larger.

    Attributes:
        batches: batches of finetune.py for all epochs, instead of the Trainer's own; then train for one epoch.
    """

    batches: Sequence[Batch] | None = None

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        if self.batches is None:
            return super().get_train_dataloader()
        return torch.utils.data.DataLoader(
            self.batches,  # pyright: ignore[reportArgumentType]
            batch_size=None,
            collate_fn=lambda batch: self.data_collator(features_of_batch(batch)),
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        warmup = round(self.args.warmup_steps * num_training_steps)
        schedule = make_schedule("linear", peak=1.0, warmup_steps=warmup, decay_steps=num_training_steps)
        rates = np.asarray(schedule(np.arange(num_training_steps + 1))).tolist()
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rates.__getitem__)
        return self.lr_scheduler


def make_trainer(
    task: TrainerTask,
    source: str,
    *,
    learning_rate: float,
    batch_size: int,
    epochs: int,
    seed: int,
    output: str,
    max_steps: int = -1,
    callback: transformers.TrainerCallback | None = None,
) -> Trainer:
    """Returns a Trainer with the defaults of finetune.py: learning-rate schedule, weight decay, gradient clipping."""
    transformers.set_seed(seed)
    transformers.utils.logging.set_verbosity_error()
    arguments = transformers.TrainingArguments(
        output_dir=output,
        learning_rate=learning_rate,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        num_train_epochs=epochs,
        max_steps=max_steps,
        warmup_steps=0.1,
        weight_decay=0.01,
        seed=seed,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return Trainer(
        task.model.from_pretrained(source, **task.options),
        arguments,
        train_dataset=task.train,  # pyright: ignore[reportArgumentType]
        data_collator=task.collator,
        callbacks=[callback] if callback else None,
    )


def turns(steps: int, begin: Callable[[], object], end: Callable[[], object]) -> transformers.TrainerCallback:
    """Returns a callback that calls `begin` and `end` around each turn of `steps` updates; see `timing.PausedLoop`."""

    class TurnCallback(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **others):
            if state.global_step % steps == 0:
                begin()

        def on_step_end(self, args, state, control, **others):
            if state.global_step % steps == 0:
                end()

    return TurnCallback()


def features_of_batch(batch: Batch) -> Features:
    """Returns the sequences of a batch of finetune.py, of one seed, each as a separate example for transformers.

    Arrays are [B, 1, T], or [B, 1, S] with one entry per sequence. A packed row with the mask 1 1 1 2 2 0 becomes an
    example of three tokens and one of two; positions of answers then count from the sequence's own first token.
    """
    rows = {name: array[:, 0] for name, array in batch.items()}
    features = []
    for row, mask in enumerate(rows["attention_mask"]):
        for sequence in range(mask.max()):
            inside = mask == sequence + 1
            first = int(inside.argmax())
            example = {name: rows[name][row][inside].tolist() for name in ("input_ids", "token_type_ids")}
            example["attention_mask"] = [1] * len(example["input_ids"])
            if "start_positions" in rows:
                for name in ("start_positions", "end_positions"):
                    example[name] = int(rows[name][row, sequence]) - first
            elif rows["labels"].shape == rows["input_ids"].shape:
                labels = np.where(rows["weights"][row] > 0, rows["labels"][row], IGNORED_LABEL)
                example["labels"] = labels[inside].tolist()
            else:
                example["label"] = int(rows["labels"][row, sequence])
            features.append(example)
    return features


def train_and_score(
    task: TrainerTask, source: str, threads: int, batches: Sequence[Batch] | None = None, **options: Any
) -> float:
    """Trains, and returns the score after the last epoch.

    Args:
        threads: threads of PyTorch.
        batches: see `Trainer`.
        **options: of `make_trainer`.
    """
    torch.set_num_threads(threads)
    trainer = make_trainer(replace(task, collator=replace(task.collator, padding="longest")), source, **options)
    trainer.batches = batches
    trainer.train()
    return task.score(trainer.predict(task.dev).predictions)  # pyright: ignore[reportArgumentType]


def classification(source: str, train: str, dev: str, max_length: int = 128) -> TrainerTask:
    """Texts with one class each, scored by accuracy; see `run_glue.py`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    examples, _ = read_texts(train)
    held_out, _ = read_texts(dev)
    names = sorted({str(example.label) for example in examples})
    gold = [names.index(str(example.label)) for example in held_out]

    def encode(examples) -> Features:
        return [
            {**tokenizer(one.text, truncation=True, max_length=max_length), "label": names.index(one.label)}
            for one in examples
        ]

    return TrainerTask(
        transformers.AutoModelForSequenceClassification,
        {"id2label": dict(enumerate(names))},
        encode(examples),
        encode(held_out),
        transformers.DataCollatorWithPadding(tokenizer),
        lambda logits: float(np.mean(logits.argmax(axis=-1) == gold)),
    )


def tagging(source: str, train: str, dev: str, max_length: int = 128) -> TrainerTask:
    """Sentences with one tag per word, predicted at its first piece, scored by entity F1; see `run_ner.py`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    examples, _ = read_tagged(train)
    held_out, _ = read_tagged(dev)
    names = sorted({tag for example in examples for tag in example.tags or ()})

    def encode(examples) -> tuple[Features, list[dict[int, int]]]:
        """Returns the encoded sentences and, for each, {position of a word's first piece: index of the word}."""
        features = []
        first_pieces = []
        for one in examples:
            encoding = tokenizer(list(one.words), is_split_into_words=True, truncation=True, max_length=max_length)
            words = encoding.word_ids()
            labels = [IGNORED_LABEL] * len(words)
            firsts = {}
            for position, word in enumerate(words):
                if word is not None and (position == 0 or word != words[position - 1]):
                    firsts[position] = word
                    labels[position] = names.index(one.tags[word])
            features.append({**encoding, "labels": labels})
            first_pieces.append(firsts)
        return features, first_pieces

    features, _ = encode(examples)
    held_out_features, first_pieces = encode(held_out)

    def entity_f1(logits: np.ndarray) -> float:
        predicted = []
        for row, firsts, one in zip(logits.argmax(axis=-1), first_pieces, held_out, strict=True):
            tags = ["O"] * len(one.words)  # also for words that were truncated
            for position, word in firsts.items():
                tags[word] = names[row[position]]
            predicted.append(tags)
        return total(count_entities(predicted, [one.tags or () for one in held_out])).f1

    return TrainerTask(
        transformers.AutoModelForTokenClassification,
        {"id2label": dict(enumerate(names))},
        features,
        held_out_features,
        transformers.DataCollatorForTokenClassification(tokenizer),
        entity_f1,
    )


def question_answering(source: str, train: str, dev: str, max_length: int = 384, overlap: int = 128) -> TrainerTask:
    """Questions of SQuAD, scored by F1, for v2.0 at its best threshold; see `run_qa.py`.

    Windows overlap by 128 tokens, the default of `run_qa.py`; those of finetune.py start 128 tokens apart, as in
    `run_squad.py`, so long contexts have fewer windows here.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    examples = read_questions(train)
    held_out = read_questions(dev)

    def encode(questions: list[Question]) -> Any:
        return tokenizer(
            [question.question.lstrip() for question in questions],
            [question.context for question in questions],
            truncation="only_second",
            max_length=max_length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )

    train_windows = encode(examples)
    dev_windows = encode(held_out)
    features = []
    for window, question in enumerate(train_windows["overflow_to_sample_mapping"]):
        start, end = _answer_tokens(train_windows, window, examples[question])
        features.append(_model_inputs(train_windows, window) | {"start_positions": start, "end_positions": end})
    return TrainerTask(
        transformers.AutoModelForQuestionAnswering,
        {},
        features,
        [_model_inputs(dev_windows, window) for window in range(len(dev_windows["input_ids"]))],
        transformers.DataCollatorWithPadding(tokenizer, padding="max_length", max_length=max_length),
        partial(_answer_f1, dev_windows, held_out),
    )


def _answer_f1(windows: Any, questions: list[Question], logits: tuple[np.ndarray, np.ndarray]) -> float:
    """Returns the F1 of the answers that the logits of all windows predict."""
    windows_of_question: list[list[WindowLogits]] = [[] for _ in questions]
    for window, question in enumerate(windows["overflow_to_sample_mapping"]):
        begin, end = _context_tokens(windows, window)
        start_logits, end_logits = (values[window].astype(np.float64) for values in logits)
        characters = np.array(windows["offset_mapping"][window][begin:end]).reshape(-1, 2)
        no_answer = (start_logits[0], end_logits[0])  # at [CLS]
        windows_of_question[question].append(
            WindowLogits(start_logits[begin:end], end_logits[begin:end], no_answer, characters)
        )
    golds = {question.id: [answer.text for answer in question.answers] for question in questions}
    contexts = [question.context for question in questions]
    version_2 = any(question.impossible for question in questions)
    answers = predict_answers(golds, contexts, windows_of_question, null_answer=version_2)
    if version_2:
        return best_thresholds(answers.texts, golds, answers.null_odds)["best_f1"]
    return totals(score_answers(answers.texts, golds, version_2=False), golds)["f1"]


def _model_inputs(windows: Any, window: int) -> dict[str, Any]:
    return {name: windows[name][window] for name in ("input_ids", "attention_mask", "token_type_ids")}


def _context_tokens(windows: Any, window: int) -> tuple[int, int]:
    """Returns the first token of the context in a window, and the one after its last."""
    sequence = np.array([-1 if part is None else part for part in windows.sequence_ids(window)])
    inside = np.flatnonzero(sequence == 1)
    return int(inside[0]), int(inside[-1]) + 1


def _answer_tokens(windows: Any, window: int, question: Question) -> tuple[int, int]:
    """Returns the first and the last token of the answer in a window; (0, 0), [CLS], if it is not all there."""
    if not question.answers:
        return 0, 0
    begin, end = _context_tokens(windows, window)
    offsets = windows["offset_mapping"][window]
    answer = question.answers[0]
    first_character = answer.start
    last_character = answer.start + len(answer.text)
    if offsets[begin][0] > first_character or offsets[end - 1][1] < last_character:
        return 0, 0
    start = max(i for i in range(begin, end) if offsets[i][0] <= first_character)
    stop = min(i for i in range(begin, end) if offsets[i][1] >= last_character)
    return start, stop
