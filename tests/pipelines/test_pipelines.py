"""A batch has the answers of its texts in order, a long text those of its windows, and transformers agrees."""

import pickle
import re
from copy import copy
from dataclasses import replace
from itertools import count, islice, pairwise
from weakref import WeakSet

import jax
import numpy as np
import pytest
import small_pipelines as small
from torch_extra import of_torch_extra

from bert_jax.pipelines import Embedder, FillMask, QuestionAnswerer, TextClassifier, TokenClassifier
from bert_jax.pipelines.pipeline import group_texts

TOLERANCE = 1e-4  # of scores; batches of other shapes add in another order
MASKED = "the [MASK] hooted at night ."
LABELLED = {"num_labels": len(small.LABELS), "label_names": small.LABELS}

PIPELINES = {
    "fill": FillMask(small.bert("BertForMaskedLM"), overlap=8),
    "classify": TextClassifier(small.bert("BertForSequenceClassification", num_labels=3), overlap=8),
    "tag": TokenClassifier(small.bert("BertForTokenClassification", **LABELLED), overlap=8),
    "answer": QuestionAnswerer(small.bert("BertForQuestionAnswering"), overlap=8),
    "embed": Embedder(small.bert("Bert"), overlap=8),
}


def inputs(name):
    """Returns the inputs of a pipeline for the texts."""
    if name == "fill":
        return [f"{text} [MASK] {'[MASK]' * (number % 3)}" for number, text in enumerate(small.TEXTS)]
    if name == "answer":
        return [{"question": "where is the owl ?", "context": text or "owl"} for text in small.TEXTS if text.strip()]
    if name == "classify":
        return [*small.TEXTS, {"text": "an owl", "text_pair": small.SHORT}]
    return list(small.TEXTS)


def assert_same(got, want):
    """Asserts equal answers, with scores up to rounding."""
    if isinstance(want, dict):
        assert got.keys() == want.keys()
        for name in want:
            assert_same(got[name], want[name])
    elif isinstance(want, list):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
    elif isinstance(want, str | int):
        assert got == want
    else:
        np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_list_has_the_answers_of_its_texts_in_order(name):
    pipeline, texts = PIPELINES[name], inputs(name)
    alone = [pipeline(text) for text in texts]
    together = pipeline(texts)
    assert len(together) == len(texts)
    for got, want in zip(together, alone, strict=True):
        assert_same(got, want)
    order = np.random.default_rng(0).permutation(len(texts))
    for place, answer in zip(order, pipeline([texts[i] for i in order]), strict=True):
        assert_same(answer, alone[place])


@pytest.mark.parametrize("name", PIPELINES)
def test_an_iterator_gives_an_iterator_and_is_read_as_needed(name):
    texts, read = inputs(name), []
    pipeline = copy(PIPELINES[name])
    pipeline.window = 3
    endless = (texts[i % len(texts)] for i in count() if read.append(i) is None)
    answers = pipeline(endless)
    for number, answer in enumerate(islice(answers, 8)):
        assert_same(answer, PIPELINES[name](texts[number]))
    assert len(read) == 9


class Watched(str):
    """A text with weak references, which plain strings do not support."""


@pytest.mark.parametrize("name", ["classify", "tag", "embed"])
def test_no_more_than_two_windows_of_texts_are_in_memory(name):
    pipeline, alive, counts = copy(PIPELINES[name]), WeakSet(), []
    pipeline.window = 5

    def texts():
        for number in range(40):
            text = Watched(f"{number} {small.SHORT}")
            alive.add(text)
            counts.append(len(alive))
            yield text

    assert len(list(pipeline(texts()))) == 40
    assert 5 < max(counts) <= 10
    assert not alive


def test_long_texts_make_smaller_groups(monkeypatch):
    monkeypatch.setattr("bert_jax.pipelines.pipeline.MAX_CHARACTERS", 20)
    pairs = [(None, "x" * 9), ("x" * 9, "x" * 9), (None, ""), (None, "x" * 30), (None, "x")]
    assert [len(group) for group in group_texts(pairs, 4096)] == [2, 2, 1]


# What cannot be answered


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("place", [0, 2, 5])
def test_texts_before_an_invalid_text_are_answered(name, place):
    texts = inputs(name)[:6]
    want = [PIPELINES[name](text) for text in texts[:place]]
    texts[place] = None
    pipeline = copy(PIPELINES[name])
    for pipeline.window in (1, 4, 4096):
        answers = pipeline(iter(texts))
        for one in want:
            assert_same(next(answers), one)
        with pytest.raises(ValueError, match=r"must be a string, got NoneType|a question must be a dict"):
            next(answers)
    with pytest.raises(ValueError, match=rf"^texts\[{place}\]: "):
        pipeline(texts)


def test_texts_before_a_text_without_an_answer_are_answered():
    for bad, name, message in (
        ("no mask", "fill", "the text has no \\[MASK\\]"),
        ({"question": "owl " * 40, "context": "owl"}, "answer", "a question of 40 tokens"),
        ({"question": "owl ?", "context": "\x00"}, "answer", "no token in the vocabulary"),
    ):
        texts = inputs(name)[:3]
        answers = PIPELINES[name](iter([*texts, bad, *texts]))
        for text in texts:
            assert_same(next(answers), PIPELINES[name](text))
        with pytest.raises(ValueError, match=message):
            next(answers)


def test_texts_before_an_error_of_their_iterator_are_answered():
    def texts():
        yield from small.LINES
        raise ConnectionError("the line is dead")

    answers = PIPELINES["classify"](texts())
    assert_same(list(islice(answers, 4)), PIPELINES["classify"](list(small.LINES)))
    with pytest.raises(ConnectionError, match="the line is dead"):
        next(answers)


@pytest.mark.parametrize("name", PIPELINES)
def test_an_unknown_option_is_an_error_before_any_text_is_read(name):
    with pytest.raises(TypeError, match="colour"):
        PIPELINES[name](iter(small.TEXTS), colour="red")


def test_buckets_are_compiled_once_over_many_calls():
    pipeline = TextClassifier(small.bert("BertForSequenceClassification"), batch_tokens=64)
    for _ in range(3):
        pipeline(list(small.TEXTS) * 4)
        pipeline(["owl"])
        pipeline([small.LINES[2]])
    assert set(pipeline.batcher.compilations) == {(2, 23), (1, 16), (1, 23)}
    assert set(pipeline.batcher.compilations.values()) == {1}


def test_no_texts_give_no_answers():
    assert PIPELINES["tag"]([]) == []
    assert PIPELINES["embed"]([]).shape == (0, 12)
    assert list(PIPELINES["classify"](iter(()))) == []


def test_there_is_no_progress_bar_without_a_terminal(capsys):
    PIPELINES["classify"](list(small.TEXTS))
    assert capsys.readouterr().err == ""


def test_a_progress_bar_can_be_requested(capsys, monkeypatch):
    monkeypatch.setattr("bert_jax.pipelines.pipeline.PROGRESS_DELAY", 0.0)
    pipeline = copy(PIPELINES["classify"])
    pipeline.progress = True
    pipeline(list(small.TEXTS))
    assert f"{len(small.TEXTS)}/{len(small.TEXTS)}" in capsys.readouterr().err


# Odd texts


@pytest.mark.parametrize("name", ["classify", "tag", "embed"])
@pytest.mark.parametrize("text", ["", " \n\t ", "\ud800", "\x00\ufffd", "x" * 500, "[SEP] [CLS] [PAD]"])
def test_odd_texts_have_sensible_answers(name, text):
    answer = PIPELINES[name](text)
    if name == "embed":
        assert np.isfinite(answer).all()
    if name == "classify":
        assert 0 < answer["score"] <= 1
    if name == "tag" and len(text) < 5:
        assert answer == []


def test_half_a_megabyte_is_one_text():
    text = "nobody " * (500_000 // 7)
    bert = small.bert("BertForSequenceClassification", max_position_embeddings=512)
    assert 0 < TextClassifier(bert, batch_tokens=1 << 13)(text)["score"] <= 1
    assert 0 < PIPELINES["classify"]("x" * 500_000)["score"] <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "texts must be a string, a dict or an iterable of these, got int"),
        (None, "texts must be a string, a dict or an iterable of these, got NoneType"),
        (b"owl", "texts must be a string, a dict or an iterable of these, got bytes"),
        ([None], "texts[0]: a text must be a string, got NoneType: None"),
        (["owl", b"owl"], "texts[1]: a text must be a string, got bytes: b'owl'"),
        (["owl", ["owl"]], "texts[1]: a text must be a string, got list: ['owl']"),
        ([[]], "texts[0]: a text must be a string, got list: []"),
        ({}, "a pair needs the keys text and text_pair, got none"),
        ({"text": "a"}, "a pair needs the keys text and text_pair, got text"),
        ([{"text": "a", "text_pair": None}], "texts[0]: a text must be a string, got NoneType: None"),
        ({"text": None, "text_pair": "a"}, "a first text must be a string, got NoneType: None"),
    ],
)
def test_an_invalid_text_is_a_one_line_error(given, message):
    with pytest.raises(ValueError, match=r"needs the keys|must be a string") as caught:
        PIPELINES["classify"](given)
    assert str(caught.value) == message


def test_a_model_without_the_head_is_an_error():
    wanted = "TextClassifier needs a BertForSequenceClassification; this is a BertModel: fine-tune it first, with "
    with pytest.raises(ValueError, match=re.escape(wanted + '`finetune(make_settings("classification", model=...))`')):
        TextClassifier(small.bert("Bert"))


def test_a_model_without_the_head_is_named_with_what_to_do(tmp_path):
    small.bert("BertForQuestionAnswering").save_pretrained(tmp_path)
    for kind, remedy in ((FillMask, "load the pretrained model"), (TokenClassifier, 'make_settings("tokens"')):
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path} is a BertForQuestionAnswering: ")) as caught:
            kind.load(tmp_path)
        assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 24}, "between 5 and the model's 23 positions, got 24"),
        ({"max_length": 4}, "between 5"),
        ({"overlap": -1}, "`overlap` must be at least 0"),
        ({"window": 0}, "`window` at least 1"),
        ({"pooling": "median"}, "`pooling` must be one of cls, max, mean, .* joined by .; got 'median'"),
    ],
)
def test_impossible_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Embedder(small.bert("Bert"), **options)


# Fill-mask


def test_the_most_probable_tokens_equal_those_of_the_model():
    bert, fill = small.bert("BertForMaskedLM"), PIPELINES["fill"]
    answers = fill(MASKED, top=4)
    logits = bert(**bert.tokenizer([MASKED])).prediction_logits[0, 2]
    scores = np.asarray(jax.nn.softmax(logits))
    assert [one["token"] for one in answers] == np.argsort(-scores)[:4].tolist()
    np.testing.assert_allclose([one["score"] for one in answers], np.sort(scores)[::-1][:4], rtol=TOLERANCE)
    assert answers[0]["sequence"] == bert.tokenizer.decode(
        [answers[0]["token"] if i == bert.tokenizer.mask_id else i for i in bert.tokenizer([MASKED])["input_ids"][0]]
    )


def test_each_mask_has_its_own_list_and_the_others_stay():
    first, second = PIPELINES["fill"]("[MASK] hooted at [MASK] .", top=2)
    assert len(first) == len(second) == 2
    assert first[0]["sequence"].endswith("hooted at [MASK]. [SEP]")
    assert second[0]["sequence"].startswith("[CLS] [MASK] hooted")


def test_a_mask_in_a_long_text_is_answered_where_it_has_the_most_context():
    fill = PIPELINES["fill"]
    text = small.MIDDLE + " [MASK] " + small.MIDDLE
    (document,) = documents(fill, text)
    ((window, (mask,)),) = fill.masked_windows(document)
    assert len(document.windows) > 3
    assert min(mask - window.start, window.stop - 1 - mask) >= 4
    assert len(fill(text)) == 5


def documents(pipeline, text):
    found = []
    list(pipeline.keyed_sequences([pipeline.pair(text)], found, []))
    return found


def test_a_text_without_a_mask_is_an_error():
    with pytest.raises(ValueError, match="the text has no \\[MASK\\]: 'no mask here'"):
        PIPELINES["fill"](["an [MASK]", "no mask here"])


def test_too_many_masks_in_a_long_text_are_an_error():
    with pytest.raises(ValueError, match=r"^3,000 \[MASK\] tokens are too many for a text of 3,000 tokens$"):
        PIPELINES["fill"]("[MASK] " * 3000)


def test_targets_have_their_probabilities_among_all_tokens():
    fill = PIPELINES["fill"]
    every = {one["token_str"]: one for one in fill(MASKED, top=1000)}
    words = ["owl", "paris", "owl", "night"]
    want = sorted((every[word] for word in set(words)), key=lambda one: -one["score"])
    assert_same(fill(MASKED, targets=words), want)
    assert_same(fill(MASKED, targets=tuple(words), top=2), want[:2])
    assert_same(fill(MASKED, targets="Paris"), [every["paris"]])
    both = fill("[MASK] hooted at [MASK] .", targets=words)
    assert [{one["token_str"] for one in each} for each in both] == [set(words)] * 2


def test_other_targets_do_not_compile_again():
    fill = FillMask(small.bert("BertForMaskedLM"))
    for words in (["owl", "it"], ["night", "paris"]):
        fill(MASKED, targets=words)
    assert set(fill.batcher.compilations.values()) == {1}


def test_a_target_of_several_pieces_uses_the_first():
    fill = PIPELINES["fill"]
    with pytest.warns(
        UserWarning, match="the target 'owlish' is not one token; its first piece 'owl' is used"
    ) as found:
        assert_same(fill(MASKED, targets=["owlish"]), fill(MASKED, targets=["owl"]))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "`targets` must have at least one word"),
        ("", "the target '' is not in the vocabulary"),
        (["owl", "\u2603"], "the target '\u2603' is not in the vocabulary"),
        ([7], "a target must be a string, got int"),
    ],
)
def test_impossible_targets_are_errors(targets, message):
    with pytest.raises(ValueError, match=message):
        PIPELINES["fill"](MASKED, targets=targets)


# Classification


def test_scores_are_probabilities_of_all_labels():
    answers = PIPELINES["classify"](small.LONG, top=None)
    assert [one["score"] for one in answers] == sorted((one["score"] for one in answers), reverse=True)
    assert {one["label"] for one in answers} == {"LABEL_0", "LABEL_1", "LABEL_2"}
    np.testing.assert_allclose(sum(one["score"] for one in answers), 1.0, rtol=TOLERANCE)
    assert PIPELINES["classify"](small.LONG, top=1) == answers[0]
    assert PIPELINES["classify"](small.LONG, top=2) == answers[:2]


def test_a_long_text_has_the_mean_score_of_its_windows():
    classify = PIPELINES["classify"]
    (document,) = documents(classify, small.LONG)
    scores, weights = np.zeros(3), 0
    for window in document.windows:
        ids = classify.bert.tokenizer.cls_id, *document.ids[window.start : window.stop], classify.bert.tokenizer.sep_id
        logits = classify.bert(np.array([ids])).logits[0]
        scores += np.asarray(jax.nn.softmax(logits)) * (len(ids) - 1)
        weights += len(ids) - 1
    (best,) = np.flatnonzero(scores == scores.max())
    assert_same(classify(small.LONG), {"label": f"LABEL_{best}", "score": scores.max() / weights})


@pytest.mark.parametrize(
    ("problem", "labels", "meaning"),
    [
        ("regression", 1, lambda x: x),
        (None, 1, lambda x: 1 / (1 + np.exp(-x))),
        ("multi_label_classification", 3, lambda x: 1 / (1 + np.exp(-x))),
    ],
)
def test_scores_follow_the_problem_type(problem, labels, meaning):
    bert = small.bert("BertForSequenceClassification", problem_type=problem, num_labels=labels)
    logits = np.asarray(bert(**bert.tokenizer([small.SHORT])).logits[0])
    want = sorted(zip(-meaning(logits), range(labels), strict=True))
    answers = TextClassifier(bert)(small.SHORT, top=None)
    assert_same(answers, [{"label": f"LABEL_{label}", "score": -score} for score, label in want])


def test_a_model_for_several_labels_gives_all_of_them_by_default():
    bert = small.bert("BertForSequenceClassification", problem_type="multi_label_classification", num_labels=3)
    classify = TextClassifier(bert)
    answers = classify(small.SHORT)
    assert answers == classify(small.SHORT, top=None)
    assert [answer["score"] for answer in answers] == sorted((answer["score"] for answer in answers), reverse=True)
    assert {answer["label"] for answer in answers} == {"LABEL_0", "LABEL_1", "LABEL_2"}
    assert classify(small.SHORT, top=1) == answers[0]
    assert classify(small.SHORT, top=2) == answers[:2]


def test_a_pair_of_long_texts_is_read_in_windows_over_the_second():
    classify = PIPELINES["classify"]
    with pytest.warns(UserWarning, match="a first text is truncated"):
        answer = classify({"text": small.LONG, "text_pair": small.LONG}, top=None)
    half = " ".join(small.LONG.split()[: (small.POSITIONS - 3) // 2 + 1])
    assert_same(answer, classify({"text": half, "text_pair": small.LONG}, top=None))


# Tagging


@pytest.mark.parametrize("aggregation", ["first", "average", "max", "simple"])
def test_entities_are_at_their_offsets(aggregation):
    tag = copy(PIPELINES["tag"])
    tag.aggregation = aggregation
    for text in small.TEXTS:
        entities = tag(text)
        assert all(0 <= one["start"] < one["end"] <= len(text) for one in entities)
        assert all(a["end"] <= b["start"] for a, b in pairwise(entities))
        for one in entities:
            assert one["entity_group"] in ("PER", "LOC")
            word = one["word"].removeprefix("##").replace(" ", "")
            assert word == text[one["start"] : one["end"]].lower().replace(" ", "")


def test_windows_cover_all_tokens_and_split_no_entity():
    label = {"num_labels": 2, "label_names": ("I-ALL", "B-NEVER")}
    bert = small.bert("BertForTokenClassification", **label)
    bias = np.array([90.0, -90.0], np.float32)
    params = {**bert.params, "classifier": {**bert.params["classifier"], "bias": bias}}
    tag = TokenClassifier(type(bert)(bert.model, params, bert.tokenizer), overlap=8)
    (entity,) = tag(small.LONG)
    assert (entity["start"], entity["end"]) == (0, len(small.LONG))


# Embedding


def test_windows_respect_max_length():
    embed = Embedder(small.bert("Bert"), max_length=11, overlap=2)
    (document,) = documents(embed, small.LONG)
    assert {window.stop - window.start for window in document.windows[:-1]} == {9}
    assert embed.batcher.lengths == (11,)
    assert_same(np.linalg.norm(embed(small.LONG)), 1.0)


# Beside transformers


@pytest.fixture
def theirs(tmp_path):
    """Their pipeline on the same weights."""
    of_torch_extra("torch")
    transformers = of_torch_extra("transformers")

    def pipeline(task, bert, **options):
        bert.save_pretrained(tmp_path)
        return transformers.pipeline(task, model=str(tmp_path), tokenizer=str(tmp_path), device="cpu", **options)

    return pipeline


def test_fill_mask_agrees_with_transformers(theirs):
    texts = [MASKED, "[MASK] heard it in [MASK] ."]
    pipeline = theirs("fill-mask", PIPELINES["fill"].bert)
    for options in ({}, {"targets": ["owl", "paris", "owl"]}):
        assert_same(PIPELINES["fill"](texts, **options), pipeline(texts, **options))


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_classification_agrees_with_transformers(theirs, problem):
    bert = small.bert("BertForSequenceClassification", num_labels=3, problem_type=problem)
    texts = [small.SHORT, "owl", {"text": "an owl", "text_pair": small.SHORT}]
    ours, pipeline = TextClassifier(bert), theirs("text-classification", bert)
    for text in texts:
        assert_same(ours(text, top=None), pipeline(text, top_k=None))


@pytest.mark.parametrize("aggregation", ["first", "average", "max", "simple"])
def test_tagging_agrees_with_transformers(theirs, aggregation):
    ours = copy(PIPELINES["tag"])
    ours.aggregation = aggregation
    pipeline = theirs("token-classification", ours.bert, aggregation_strategy=aggregation)
    for text in [*small.LINES, "Paris in 1923 !", "Somebody ~ hooted"]:
        assert_same(ours(text), [{**one, "score": float(one["score"])} for one in pipeline(text)])


# Special tokens in texts


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classify", "an owl [SEP] it"),
        ("classify", {"text": "an [CLS] owl", "text_pair": "it [PAD]"}),
        ("embed", "an owl [MASK] it"),
        ("answer", {"question": "who [MASK] ?", "context": "an owl [SEP] it flew"}),
        ("fill", "the [MASK] [SEP] hooted [PAD]"),
    ],
)
def test_special_tokens_typed_by_a_user_are_text(name, text):
    def spelled(given):
        if isinstance(given, dict):
            return {key: spelled(one) for key, one in given.items()}
        special = "(SEP|CLS|PAD)" if name == "fill" else "(SEP|CLS|PAD|MASK)"
        return re.sub(rf"\[{special}\]", lambda match: f"[ {match[1].lower()} ]", given)

    got, want = PIPELINES[name](text), PIPELINES[name](spelled(text))
    assert text != spelled(text)
    key = {"classify": "score", "answer": "score"}.get(name)
    if name == "fill":
        got, want = ([one["score"] for one in answers] for answers in (got, want))
    assert_same(got[key] if key else got, want[key] if key else want)


def test_a_text_needs_the_mask_itself():
    with pytest.raises(ValueError, match=r"the text has no \[MASK\]"):
        PIPELINES["fill"]("the [mask] hooted")


def test_templates_may_contain_special_tokens():
    bert = small.bert("BertForSequenceClassification", num_labels=3)
    marked = TextClassifier(bert, special_tokens=True)
    pair = TextClassifier(bert)({"text": "an owl", "text_pair": "it"})
    inputs = bert.tokenizer(["an owl [SEP] it"])
    logits = np.asarray(bert(**inputs).logits[0])
    assert marked("an owl [SEP] it")["label"] == f"LABEL_{logits.argmax()}"
    assert abs(marked("an owl [SEP] it")["score"] - TextClassifier(bert)("an owl [SEP] it")["score"]) > TOLERANCE
    assert pair["label"].startswith("LABEL_")
    setting = replace(bert, vocabulary=bert.tokenizer.with_settings(split_special_tokens=False))
    assert_same(TextClassifier(setting)("an owl [SEP] it"), marked("an owl [SEP] it"))
    assert_same(TextClassifier(setting, special_tokens=False)("an [SEP] owl"), TextClassifier(bert)("an [SEP] owl"))


# Processes


@pytest.mark.parametrize("name", PIPELINES)
def test_a_called_pipeline_can_be_pickled(name):
    pipeline, texts = PIPELINES[name], inputs(name)[:2]
    want = pipeline(texts)
    assert_same(pickle.loads(pickle.dumps(pipeline))(texts), want)
