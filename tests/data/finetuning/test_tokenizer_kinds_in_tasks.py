"""Examples are encoded with any tokenizer as it encodes them itself, and labels stay with their words."""

from functools import cache

import numpy as np
import pytest
import tokenizer_kinds as kinds

from bert_jax.data.finetuning.batches import BatchShape, Features, RowFormat
from bert_jax.data.finetuning.questions import encode_questions
from bert_jax.data.finetuning.sequences import encode_texts
from bert_jax.data.finetuning.tags import encode_tagged
from bert_jax.data.readers.examples import Answer, Question, TaggedExample, TextExample
from bert_jax.text.tokenizer import Tokenizer

KIND = pytest.mark.parametrize("kind", kinds.KINDS)
PAIRS = [("an owl", "of Berlin"), ("who believes the believers?", None), ("", "an"), ("An owl hooted; " * 5, "so " * 9)]


@cache
def tokenizer(kind):
    return Tokenizer(kinds.backend(kind))


def examples():
    return [TextExample(text, pair, None, f"line {number}") for number, (text, pair) in enumerate(PAIRS)]


@KIND
@pytest.mark.parametrize("max_length", [13, 200])
def test_texts_and_pairs_are_encoded_like_the_tokenizer_does(kind, max_length):
    ours = tokenizer(kind)
    sequences, _ = encode_texts(examples(), ours, max_length=max_length)
    shape = BatchShape(len(PAIRS), 200)
    batch, _ = RowFormat(200, 1, 1, ours.pad_id).build(Features(sequences), [[0], [1], [2], [3]], shape)
    for number, (text, pair) in enumerate(PAIRS):
        wanted = ours([text], None if pair is None else [pair], max_length=max_length)
        length = wanted["input_ids"].shape[1]
        assert sequences.lengths[number] == length
        for name, array in wanted.items():
            np.testing.assert_array_equal(batch[name][number, :length], array[0], err_msg=name)
        assert set(batch["input_ids"][number, length:].tolist()) <= {ours.pad_id}


@KIND
def test_too_short_rows_are_an_error_with_the_numbers_of_the_layout(kind):
    least = 5 if kind == "wordpiece" else 6
    encode_texts(examples(), tokenizer(kind), max_length=least)
    with pytest.raises(ValueError, match=f"`max_length` must be at least {least}"):
        encode_texts(examples(), tokenizer(kind), max_length=least - 1)


@KIND
def test_the_tokens_of_an_answer_cover_it_in_some_window(kind):
    context = "  ".join(kinds.SENTENCES[:2])
    ours = tokenizer(kind)
    questions = []
    for number, wanted in enumerate(["Anna Smith", "17 cups", "New York", "owl", "Berlin", "The", "unbelievable mole"]):
        answer = Answer(wanted, context.index(wanted))
        questions.append(Question(str(number), "who believes", context, (answer,), False, "x"))
    sequences = encode_questions(questions, ours, max_length=47, stride=11, max_question_length=9)
    assert sequences.found.all()
    seen = set()
    windows = sequences.window_logits(np.zeros(len(sequences.ids)), np.zeros(len(sequences.ids)))
    numbers = np.zeros(len(questions), int)
    for window, question in enumerate(sequences.questions.tolist()):
        characters = windows[question][numbers[question]].characters
        numbers[question] += 1
        start, end = sequences.starts[window], sequences.ends[window]
        if start > 0:
            begin = sequences.contexts[window]
            found = context[characters[start - begin, 0] : characters[end - begin, 1]]
            assert found == questions[question].answers[0].text
            seen.add(question)
    assert seen == set(range(len(questions)))
    row = sequences.ids[: sequences.offsets[1]].tolist()
    question = ours.encode_batch(["who believes"], add_special_tokens=False)[0].ids
    assert row[: len(question) + 1] == [ours.cls_id, *question]
    assert row[-1] == ours.sep_id


@KIND
def test_each_word_is_labelled_by_its_first_piece_as_in_a_text(kind):
    ours = tokenizer(kind)
    words = ("Anna", "untested", "", "hooting", "Noël", "x")
    tags = ("B-x", "O", "O", "B-x", "O", "B-x")
    sequences = encode_tagged([TaggedExample(words, tags, "x")], ours, names=("O", "B-x"), max_length=99, overlap=4)
    text = " " + " ".join(word for word in words if word)
    encoding = ours.backend.encode(text, add_special_tokens=False)
    ids = np.array(encoding.ids)
    assert sequences.ids[1:-1].tolist() == encoding.ids
    starts = ours.word_starts(text, ids, ours.offsets(text, encoding))
    np.testing.assert_array_equal(sequences.words[1:-1] >= 0, starts)
    (found,) = sequences.by_sentence(sequences.labels, missing=-1)
    assert found.tolist() == [1, 0, -1, 1, 0, 1]
