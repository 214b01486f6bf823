"""Windows cover all tokens of a context; the target is the answer, or [CLS] if the window does not contain it."""

import numpy as np
import pytest
import small_pipelines as small
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_file

from bert_jax.data.finetuning.answers import predict_answers
from bert_jax.data.finetuning.questions import encode_questions
from bert_jax.data.readers.examples import Answer, Question
from bert_jax.data.readers.questions import read_questions
from bert_jax.metrics.squad import score_answers, totals
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.windows import owners, slide

WORDS = " ".join(small.LINES).split()
CONTEXTS = st.lists(st.sampled_from([*WORDS, "\x00", "\n", "  "]), max_size=40).map(" ".join)
ASKED = "where is the owl ?"


def question(context, *answers, asked=ASKED, impossible=False):
    """Answers are texts, found in the context, or pairs of text and start."""
    golds = [Answer(gold, context.find(gold)) if isinstance(gold, str) else Answer(*gold) for gold in answers]
    return Question("q", asked, context, tuple(golds), impossible, "train.json: question q")


def encode(*questions, **options):
    options = {"max_length": 23, "stride": 6, "max_question_length": 7, **options}
    return encode_questions(questions, small.tokenizer(), **options)


def pointed_at(sequences, number, context):
    """The characters of the context that window `number` points at; None for [CLS]."""
    start, end, second = sequences.starts[number], sequences.ends[number], sequences.second[number]
    if end == 0:
        assert start == 0
        return None
    assert second <= start <= end < sequences.lengths[number] - 1
    first = sequences.first_tokens[number] - second
    return context[sequences.characters[first + start, 0] : sequences.characters[first + end, 1]]


@settings(max_examples=80)
@given(st.lists(st.tuples(CONTEXTS, st.integers(0, 9)), max_size=3), st.integers(11, 30), st.integers(1, 30))
def test_windows_hold_every_token_of_the_context_and_own_each_once(given, max_length, stride):
    tokenizer = small.tokenizer()
    questions = [question(context, asked="owl " * asked) for context, asked in given]
    sequences = encode(*questions, max_length=max_length, stride=stride)
    assert sequences.cut == sum(asked > 7 for _, asked in given)
    for number, (context, asked) in enumerate(given):
        whole = tokenizer.backend.encode(context, add_special_tokens=False)
        first = tokenizer.backend.encode("owl " * min(asked, 7), add_special_tokens=False).ids
        room = max_length - len(first) - 3
        expected = slide(len(whole), room, min(stride, room))
        windows = np.flatnonzero(sequences.questions == number)
        assert len(windows) == len(expected)
        for index, (i, window) in enumerate(zip(windows, expected, strict=True)):
            ids = [tokenizer.cls_id, *first, tokenizer.sep_id, *whole.ids[window.start : window.stop], tokenizer.sep_id]
            here = slice(*sequences.offsets[i : i + 2])
            assert sequences.ids[here].tolist() == ids
            assert sequences.second[i] == len(first) + 2
            owned = np.zeros(len(ids), bool)
            owned[len(first) + 2 : -1] = owners(expected)[window.start : window.stop] == index
            assert sequences.owned[here].tolist() == owned.tolist()
            token = sequences.first_tokens[i]
            characters = sequences.characters[token : token + window.stop - window.start].tolist()
            assert list(map(tuple, characters)) == whole.offsets[window.start : window.stop]


@settings(max_examples=80)
@given(CONTEXTS, st.data())
def test_the_target_is_the_answer_if_the_window_contains_it(context, data):
    words = context.split(" ")
    begin = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(begin + 1, min(begin + 8, len(words))))
    text, start = " ".join(words[begin:end]), len(" ".join([*words[:begin], ""]))
    sequences = encode(question(context, (text, start)))
    pieces = small.tokenizer().backend.encode(context, add_special_tokens=False).offsets
    answer = {i for i, (first, last) in enumerate(pieces) if first < start + len(text) and last > start}
    spoken = {character for first, last in pieces for character in range(first, last)}
    edges = {start + len(text) - len(text.lstrip()), start + len(text.rstrip()) - 1}
    assert sequences.found.tolist() == [bool(text.strip()) and edges <= spoken]
    for number in range(len(sequences)):
        token = sequences.first_tokens[number]
        window = set(range(token, token + sequences.lengths[number] - sequences.second[number] - 1))
        shown = pointed_at(sequences, number, context)
        assert (shown is not None) == (sequences.found[0] and answer <= window)
        if shown is not None:
            assert shown.split() == text.split()


def test_an_answer_outside_the_tokens_is_not_found():
    context = "Somebody heard it in Paris , \x00 in 1923 ."
    golds = ["Paris", ("Paris", 3), ("Lyon", -1), ("\x00", 29), ("", 9), ("1923 .", 34)]
    sequences = encode(*(question(context, gold) for gold in golds), question(context), max_length=30)
    assert sequences.found.tolist() == [True, False, False, False, False, True, False]
    assert [pointed_at(sequences, number, context) for number in (0, 5)] == ["Paris", "1923 ."]
    trainable = sequences.trainable()
    assert trainable.questions.tolist() == [0, 5]
    assert trainable.starts.tolist() == sequences.starts[[0, 5]].tolist()
    assert trainable.found is sequences.found


def test_an_answer_in_no_single_window_is_not_trained_on():
    context = " ".join(["paris", "owl", "1923", "barn"] * 5)
    twenty = " ".join(context.split()[:11])  # a window has room for 10 words, and the next begins 9 later
    impossible = question(context, impossible=True)
    sequences = encode(question(context, "1923"), question(context, (twenty, 0)), impossible, max_length=18, stride=9)
    assert sequences.found.tolist() == [True, True, True]
    assert sequences.whole.tolist() == [True, False, True]
    assert set(sequences.trainable().questions.tolist()) == {0, 2}


def test_windows_without_overlap_are_counted():
    contexts = [" ".join(["owl"] * count) for count in (10, 11, 40)]
    for stride, no_overlap in ((10, 0), (11, 2)):
        assert encode(*map(question, contexts), max_length=18, stride=stride).no_overlap == no_overlap


def test_the_target_is_the_first_answer_found():
    context = "somebody heard it in paris , in 1923"
    sequences = encode(question(context, ("Lyon", -1), "1923", "paris"), max_length=30)
    assert pointed_at(sequences, 0, context) == "1923"


def test_a_question_without_an_answer_targets_cls():
    sequences = encode(question("the owl hooted", impossible=True))
    assert sequences.found.tolist() == [True]
    assert (sequences.starts.tolist(), sequences.ends.tolist()) == ([0], [0])


def test_an_answer_within_a_word_targets_its_tokens():
    context = "paris1923paris hooted"
    sequences = encode(question(context, ("1923", 5)))
    assert "1923" in pointed_at(sequences, 0, context)


def test_a_context_is_encoded_once():
    contexts = ["the owl hooted", "it flew", "the owl hooted"]
    sequences = encode(*map(question, contexts))
    assert sequences.questions.tolist() == [0, 1, 2]
    assert sequences.first_tokens[0] == sequences.first_tokens[2] == 0
    assert len(sequences.characters) == sequences.first_tokens[1] + sequences.lengths[1] - sequences.second[1] - 1


def test_logits_are_grouped_by_question():
    sequences = encode(question(small.LONG), question("it flew"))
    random = np.random.default_rng(5)
    start_logits, end_logits = random.normal(size=(2, len(sequences.ids)))
    windows = sequences.window_logits(start_logits, end_logits)
    assert [len(some) for some in windows] == np.bincount(sequences.questions).tolist()
    for number, window in enumerate([*windows[0], *windows[1]]):
        begin, end = sequences.offsets[number : number + 2]
        inside = slice(begin + sequences.second[number], end - 1)
        assert window.null == (start_logits[begin], end_logits[begin])
        assert window.ends.tolist() == end_logits[inside].tolist()
        assert window.starts.tolist() == np.where(sequences.owned[inside], start_logits[inside], -np.inf).tolist()
        assert len(window.characters) == len(window.ends)
    assert small.LONG[slice(*windows[0][-1].characters[-1])] == small.LONG.split()[-1]


def test_no_examples_give_no_sequences():
    sequences = encode()
    assert (len(sequences), len(sequences.found), sequences.cut) == (0, 0, 0)
    assert sequences.window_logits(np.zeros(0), np.zeros(0)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 10}, "`max_length` 10 has no room for a context beside a question of 7 tokens"),
        ({"stride": 0}, "`stride` and `max_question_length` must be at least 1, got 0, 7"),
    ],
)
def test_impossible_numbers_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        encode(question("owl"), **options)


@pytest.mark.parametrize("name", ["train-v1.1", "dev-v2.0"])
def test_every_answer_of_squad_is_found_and_shown_by_a_window(name):
    questions = read_questions(shared_file(f"squad/{name}.json"))
    contexts = list(dict.fromkeys(question.context for question in questions))
    tokenizer = Tokenizer.train(contexts[:400], 2000)  # so that there are long windows, of many pieces
    sequences = encode_questions(questions, tokenizer, max_length=200, stride=64, max_question_length=64)
    assert sequences.found.all()
    answerable = {number for number, question in enumerate(questions) if question.answers}
    owned = np.add.reduceat(sequences.owned, sequences.offsets[:-1])
    assert len(sequences) > len(questions)
    exact, seen = set(), set()
    for i in np.flatnonzero(sequences.ends):
        number = int(sequences.questions[i])
        seen.add(number)
        context, answer = questions[number].context, questions[number].answers[0]
        shown = pointed_at(sequences, i, context)
        assert answer.text.strip() in shown
        # What is shown beside the answer is the rest of a word.
        assert len(shown.split()) == len(answer.text.split())
        exact |= {number} if shown == answer.text else set()
    # An answer longer than windows overlap may be in none of them.
    assert len(answerable - seen) <= 0.01 * len(answerable)
    assert seen <= answerable
    assert len(exact) > 0.98 * len(seen)
    assert owned.sum() == sum(
        len(encoding.ids)
        for encoding in tokenizer.backend.encode_batch_fast([q.context for q in questions], add_special_tokens=False)
    )


def test_the_targets_of_squad_score_100_percent():
    questions = read_questions(shared_file("squad/dev-v2.0.json"))
    tokenizer = Tokenizer.train([question.context for question in questions[:400]], 2000)
    sequences = encode_questions(questions, tokenizer, max_length=384, stride=128, max_question_length=64)
    start_logits, end_logits = np.zeros((2, len(sequences.ids)), np.float32)
    start_logits[sequences.offsets[:-1] + sequences.starts] = 9
    end_logits[sequences.offsets[:-1] + sequences.ends] = 9
    names = [question.id for question in questions]
    golds = {question.id: [answer.text for answer in question.answers] for question in questions}
    predictions = predict_answers(
        names,
        [question.context for question in questions],
        sequences.window_logits(start_logits, end_logits),
        max_answer_length=100,
        null_answer=True,
    )
    found = totals(score_answers(predictions.above(0.0), golds, version_2=True), golds)
    assert found["no_answer_exact_match"] == 1
    assert found["has_answer_f1"] > 0.99  # some answers are parts of words
    assert found["has_answer_exact_match"] > 0.98
