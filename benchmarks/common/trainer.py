"""Fine-tuning as users of PyTorch do it: the `Trainer` of transformers, fed as its official examples feed it.

Texts and tagged sentences are padded to the longest of their batch, questions to 384 tokens, as `run_glue.py`,
`run_ner.py` and `run_qa.py` have it by default; where a score is wanted and not a speed, questions are padded to the
longest too, which changes rounding alone. The learning rate goes as in finetune.py. Answers are scored by this
project's scorers, which count what the official ones count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers

from bert_jax.data.prefetch import Batch
from bert_jax.data.readers.examples import Question
from bert_jax.data.readers.questions import read_questions
from bert_jax.data.readers.tagged import read_tagged
from bert_jax.data.readers.texts import read_texts
from bert_jax.metrics.entities import count_entities, total
from bert_jax.metrics.spans import WindowLogits, predict_answers
from bert_jax.metrics.squad import best_thresholds, score_answers, totals
from bert_jax.training.optimizers import make_schedule

IGNORED = -100
Features = list[dict[str, Any]]


@dataclass(frozen=True)
class Peer:
    """A task as transformers trains it.

    Attributes:
        model: the class to load.
        options: what the class is told besides, the names of classes too.
        train, dev: encoded.
        collator: pads features and makes a batch of them.
        score: of the logits for `dev`.
    """

    model: Any
    options: dict[str, Any]
    train: Features
    dev: Features
    collator: Any
    score: Callable[[Any], float]


class Trainer(transformers.Trainer):
    """The Trainer, at the learning rate that finetune.py has at each step: BERT's line to zero runs from step 0, the
    Trainer's own from the end of the warm-up, which comes to a tenth more learning.

    Attributes:
        batches: those of finetune.py, for all epochs, in place of its own; it is to train for one epoch then.
    """

    batches: Sequence[Batch] | None = None

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        if self.batches is None:
            return super().get_train_dataloader()
        return torch.utils.data.DataLoader(
            self.batches,  # pyright: ignore[reportArgumentType]
            batch_size=None,
            collate_fn=lambda batch: self.data_collator(features_of(batch)),
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        warmup = round(self.args.warmup_steps * num_training_steps)
        schedule = make_schedule("linear", peak=1.0, warmup_steps=warmup, decay_steps=num_training_steps)
        rates = np.asarray(schedule(np.arange(num_training_steps + 1))).tolist()
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rates.__getitem__)
        return self.lr_scheduler


def make_trainer(
    peer: Peer,
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
    """Returns a Trainer with the defaults of finetune.py: the rate at each step, decay of weights, clipping."""
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
        peer.model.from_pretrained(source, **peer.options),
        arguments,
        train_dataset=peer.train,  # pyright: ignore[reportArgumentType]
        data_collator=peer.collator,
        callbacks=[callback] if callback else None,
    )


def features_of(batch: Batch) -> Features:
    """Returns the sequences of a batch [B, 1, T] of finetune.py and one seed, each by itself, as PyTorch has it."""
    rows = {name: array[:, 0] for name, array in batch.items()}
    features = []
    for number, mask in enumerate(rows["attention_mask"]):
        for slot in range(mask.max()):
            inside = mask == slot + 1
            first = int(inside.argmax())
            one = {name: rows[name][number][inside].tolist() for name in ("input_ids", "token_type_ids")}
            one["attention_mask"] = [1] * len(one["input_ids"])
            if "start_positions" in rows:
                one |= {name: int(rows[name][number, slot]) - first for name in ("start_positions", "end_positions")}
            elif rows["labels"].shape == rows["input_ids"].shape:
                known = rows["weights"][number] > 0
                one["labels"] = np.where(known, rows["labels"][number], IGNORED)[inside].tolist()
            else:
                one["label"] = int(rows["labels"][number, slot])
            features.append(one)
    return features


def score(peer: Peer, source: str, threads: int, batches: Sequence[Batch] | None = None, **options: Any) -> float:
    """Trains, and returns the score of the last epoch.

    Args:
        batches: see `Trainer`.
    """
    torch.set_num_threads(threads)
    trainer = make_trainer(replace(peer, collator=replace(peer.collator, padding="longest")), source, **options)
    trainer.batches = batches
    trainer.train()
    return peer.score(trainer.predict(peer.dev).predictions)  # pyright: ignore[reportArgumentType]


def classification(source: str, train: str, dev: str, max_length: int = 128) -> Peer:
    """Texts with a class each, scored by accuracy; see `run_glue.py`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    examples, held_out = read_texts(train), read_texts(dev)
    names = sorted({str(example.label) for example in examples})

    def encode(some) -> Features:
        return [
            {**tokenizer(one.text, truncation=True, max_length=max_length), "label": names.index(one.label)}
            for one in some
        ]

    return Peer(
        transformers.AutoModelForSequenceClassification,
        {"id2label": dict(enumerate(names))},
        encode(examples),
        encode(held_out),
        transformers.DataCollatorWithPadding(tokenizer),
        lambda logits: float(np.mean(logits.argmax(axis=-1) == [names.index(str(one.label)) for one in held_out])),
    )


def tagging(source: str, train: str, dev: str, max_length: int = 128) -> Peer:
    """Sentences with a tag for each word, scored by the F1 of entities; the first piece speaks; see `run_ner.py`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    examples, held_out = read_tagged(train), read_tagged(dev)
    names = sorted({tag for example in examples for tag in example.tags or ()})

    def encode(some) -> tuple[Features, list[dict[int, int]]]:
        """Returns the sentences encoded, and of each {place of a first piece: its word}; some words have no piece."""
        features, places = [], []
        for one in some:
            encoding = tokenizer(list(one.words), is_split_into_words=True, truncation=True, max_length=max_length)
            words = encoding.word_ids()
            pairs = enumerate(zip(words, [None, *words], strict=False))
            places.append({place: word for place, (word, before) in pairs if word is not None and word != before})
            labels = [IGNORED] * len(words)
            for place, word in places[-1].items():
                labels[place] = names.index(one.tags[word])
            features.append({**encoding, "labels": labels})
        return features, places

    features, _ = encode(examples)
    held_out_features, first_pieces = encode(held_out)

    def entity_f1(logits: np.ndarray) -> float:
        predicted = []
        for row, places, one in zip(logits.argmax(axis=-1), first_pieces, held_out, strict=True):
            tags = ["O"] * len(one.words)  # also for what was cut off
            for place, word in places.items():
                tags[word] = names[row[place]]
            predicted.append(tags)
        return total(count_entities(predicted, [one.tags or () for one in held_out])).f1

    return Peer(
        transformers.AutoModelForTokenClassification,
        {"id2label": dict(enumerate(names))},
        features,
        held_out_features,
        transformers.DataCollatorForTokenClassification(tokenizer),
        entity_f1,
    )


def question_answering(source: str, train: str, dev: str, max_length: int = 384, shared: int = 128) -> Peer:
    """Questions of SQuAD, scored by F1, for v2.0 at its best threshold; see `run_qa.py`.

    Its windows share 128 tokens, as `run_qa.py` has it by default, while those of finetune.py begin 128 tokens apart,
    as `run_squad.py` had it: long contexts are read in fewer windows here.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    (examples, _), (held_out, _) = read_questions(train), read_questions(dev)

    def windows(some: list[Question]) -> Any:
        return tokenizer(
            [one.question.lstrip() for one in some],
            [one.context for one in some],
            truncation="only_second",
            max_length=max_length,
            stride=shared,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )

    def inputs(encoding: Any, number: int) -> dict[str, Any]:
        return {name: encoding[name][number] for name in ("input_ids", "attention_mask", "token_type_ids")}

    learned, asked = windows(examples), windows(held_out)
    features = []
    for number, question in enumerate(learned["overflow_to_sample_mapping"]):
        start, end = answer_in(learned, number, examples[question])
        features.append(inputs(learned, number) | {"start_positions": start, "end_positions": end})

    def f1(logits: tuple[np.ndarray, np.ndarray]) -> float:
        found: list[list[WindowLogits]] = [[] for _ in held_out]
        for number, question in enumerate(asked["overflow_to_sample_mapping"]):
            begin, end = context_of(asked, number)
            starts, ends = (values[number].astype(np.float64) for values in logits)
            characters = np.array(asked["offset_mapping"][number][begin:end])
            found[question].append(
                WindowLogits(starts[begin:end], ends[begin:end], (starts[0], ends[0]), characters.reshape(-1, 2))
            )
        golds = {one.id: [answer.text for answer in one.answers] for one in held_out}
        version_2 = any(one.impossible for one in held_out)
        answers = predict_answers(golds, [one.context for one in held_out], found, null_answer=version_2)
        if version_2:
            return best_thresholds(answers.texts, golds, answers.null_odds)["best_f1"]
        return totals(score_answers(answers.texts, golds, version_2=False), golds)["f1"]

    return Peer(
        transformers.AutoModelForQuestionAnswering,
        {},
        features,
        [inputs(asked, number) for number in range(len(asked["input_ids"]))],
        transformers.DataCollatorWithPadding(tokenizer, padding="max_length", max_length=max_length),
        f1,
    )


def context_of(windows: Any, number: int) -> tuple[int, int]:
    """Returns where the context begins and ends in a window."""
    sequence = np.array([-1 if part is None else part for part in windows.sequence_ids(number)])
    inside = np.flatnonzero(sequence == 1)
    return int(inside[0]), int(inside[-1]) + 1


def answer_in(windows: Any, number: int, question: Question) -> tuple[int, int]:
    """Returns the first and the last token of the answer in a window; [CLS] twice where it does not hold it."""
    begin, end = context_of(windows, number)
    offsets = windows["offset_mapping"][number]
    if not question.answers:
        return 0, 0
    answer = question.answers[0]
    first, last = answer.start, answer.start + len(answer.text)
    if offsets[begin][0] > first or offsets[end - 1][1] < last:
        return 0, 0
    start = max(i for i in range(begin, end) if offsets[i][0] <= first)
    stop = min(i for i in range(begin, end) if offsets[i][1] >= last)
    return start, stop
