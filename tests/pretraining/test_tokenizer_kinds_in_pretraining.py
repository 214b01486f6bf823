"""Pretraining with every kind of tokenizer, trained or given: text to a model that transformers reads."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizer_kinds as kinds
from small_runs import SMALL, tokenized_corpus, write_corpus

import bert_jax
import train as script
from bert_jax.cli.programs import parse_pretraining
from bert_jax.config import BertConfig
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.interop.loading import read_vocabulary
from bert_jax.models import BertForMaskedLM
from bert_jax.pipelines import FillMask
from bert_jax.pretraining import make_settings, pretrain
from bert_jax.pretraining.corpus import Documents
from bert_jax.pretraining.model import model_config
from bert_jax.pretraining.source import count_new_words
from bert_jax.text.tokenizer import Tokenizer

TOLERANCE = 1e-4
SENTENCE = "the {} was good."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "films.txt")


@pytest.fixture(scope="module")
def flags(corpus, tmp_path_factory):
    return [*SMALL, "--corpus", str(corpus), "--cache-dir", str(tmp_path_factory.mktemp("cache")), "--quiet"]


def of_transformers(folder, tokenizer, texts):
    """Requires that transformers gives the ids of a saved tokenizer, for texts and pairs."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: the peer to compare with")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for pairs in (None, texts[::-1]):
        wanted = theirs(texts, pairs)["input_ids"]
        assert [encoding.ids for encoding in tokenizer.encode_batch(texts, pairs)] == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_run_with_a_vocabulary_of_the_kind(kind, flags, tmp_path, capsys):
    flags = [*flags, "--tokenizer-kind", kind, "--vocab-size", "310", "--objective", "mlm", "--whole-word-masking"]
    run = tmp_path / "run"
    script.main([*flags, "--steps", "2", "--output", str(run), "--fill-mask", SENTENCE.format("[MASK]")])
    printed = capsys.readouterr().out
    assert f"training a {kind} vocabulary of 310 tokens" in printed
    assert "text is lower-cased, accents and other marks are stripped" in printed
    assert "most likely words for each [MASK]:" in printed
    script.main([*flags, "--steps", "3", "--output", str(run), "--resume"])
    assert make_settings(output=str(run), resume=True).text.tokenizer_kind == kind
    with pytest.raises(ValueError, match=f"it began with tokenizer_kind '{kind}'"):
        script.main([*flags, "--steps", "4", "--output", str(run), "--resume", "--tokenizer-kind", "wordpiece"])
    model = bert_jax.load(run)
    assert model.tokenizer.backend.model.__class__.__name__.lower() == kind
    assert len(FillMask(model)(SENTENCE.format("[MASK]"), top=3)) == 3
    model.save_pretrained(tmp_path / "saved")
    of_transformers(tmp_path / "saved", bert_jax.load(tmp_path / "saved").tokenizer, kinds.unicode_texts(50))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_whole_words_are_masked_and_random_tokens_are_real_ones(kind, flags, tmp_path):
    """Every piece is short in a vocabulary with little room for merges: words have several."""
    size = {"bpe": "265", "unigram": "33"}[kind]
    command = [
        *flags,
        "--tokenizer-kind",
        kind,
        "--vocab-size",
        size,
        "--whole-word-masking",
        "--output",
        str(tmp_path),
    ]
    corpus = tokenized_corpus(parse_pretraining([*command, "--masked-share", "0.4", "--batch-size", "64"]))
    tokenizer = corpus.tokenizer
    batches = corpus.training_batches(start_row=0, shard=(0, 1))
    batch = next(batches)
    batches.close()
    original = batch["input_ids"].copy()
    rows, slots = np.nonzero(batch["masked_weights"])
    columns = batch["masked_positions"][rows, slots]
    seen = original[rows, columns]
    original[rows, columns] = batch["masked_labels"][rows, slots]
    masked = np.zeros(original.shape, bool)
    masked[rows, columns] = True
    special = np.isin(original, tokenizer.special_ids)
    assert not (masked & special).any()
    joined = tokenizer.continuation[original[:, 1:]] & ~special[:, 1:] & ~special[:, :-1]
    assert joined.sum() > 300
    assert (masked[:, 1:] == masked[:, :-1])[joined].all()
    changed = seen[(seen != tokenizer.mask_id) & (seen != batch["masked_labels"][rows, slots])]
    assert len(changed) > 5
    assert not np.isin(changed, tokenizer.special_ids).any()


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A random RoBERTa with a byte-level BPE, whose mask is <mask>."""
    tokenizer = Tokenizer(kinds.backend("bpe"))
    config = BertConfig(
        model_type="roberta", vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id, hidden_size=16,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, max_position_embeddings=34,
    )  # fmt: skip
    model = BertForMaskedLM(config)
    params = model.init(jax.random.key(3), jnp.zeros((1, 2), jnp.int32))["params"]
    folder = tmp_path_factory.mktemp("roberta") / "model"
    LoadedBert(model, params, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def no_reading(monkeypatch):
    def read(settings):
        raise AssertionError("the text is read")

    monkeypatch.setattr(Documents, "read", read)


def continued(roberta, corpus, tmp_path, **changes):
    return make_settings(
        model=str(roberta), corpus=(str(corpus),), cache_dir=str(tmp_path / "cache"), output=str(tmp_path / "run"),
        objective="mlm", quiet=True, **changes,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_pretraining_continues_from_a_roberta(roberta, corpus, tmp_path, capsys):
    texts = (SENTENCE.format("<mask>"), SENTENCE.format("[MASK]"))
    run = pretrain(
        continued(
            roberta,
            corpus,
            tmp_path,
            steps=3,
            decay_steps=9,
            warmup_steps=1,
            batch_size=8,
            max_length=32,
            whole_word_masking=True,
            fill_mask=texts,
        )
    )
    printed = capsys.readouterr().out
    assert "most likely words for each <mask>:" in printed
    assert "newly initialized: nothing" in printed
    model = run.model
    assert (model.config.model_type, model.config.pad_token_id) == ("roberta", 1)
    before = bert_jax.load(roberta)
    assert model.tokenizer.fingerprint == before.tokenizer.fingerprint
    word = ("embeddings", "word", "embedding")
    trained, untrained = (one.params[word[0]][word[1]][word[2]] for one in (model, before))
    assert not np.array_equal(trained, untrained)
    model.save_pretrained(tmp_path / "saved")
    again = bert_jax.load(tmp_path / "saved")
    inputs = again.tokenizer([texts[0], "Anna's owl"])
    np.testing.assert_array_equal(inputs["input_ids"], model.tokenizer([texts[0], "Anna's owl"])["input_ids"])
    logits = np.asarray(again(**inputs).prediction_logits)
    np.testing.assert_array_equal(logits, model(**inputs).prediction_logits)
    of_transformers(tmp_path / "saved", again.tokenizer, kinds.unicode_texts(50))
    torch = pytest.importorskip("torch", reason="torch is not installed: the peer to compare with")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: the peer to compare with")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        wanted = theirs(*(torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask"))).logits.numpy()
    real = inputs["attention_mask"] > 0
    np.testing.assert_allclose(logits[real], wanted[real], atol=TOLERANCE)


def test_masks_to_fill_are_checked_before_the_text_is_read(roberta, corpus, tmp_path, no_reading):
    for sentence in ("no mask", "<mask> and [MASK]", "[MASK] [MASK]"):
        with pytest.raises(
            ValueError, match=r"`fill_mask`: each sentence must contain one <mask> \(or \[MASK\]\), got"
        ):
            pretrain(continued(roberta, corpus, tmp_path, fill_mask=(sentence,)))


@pytest.mark.parametrize("words", [3, "words.txt"])
def test_new_words_for_other_vocabularies_are_refused_before_the_text_is_read(
    words, roberta, corpus, tmp_path, no_reading, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("quokka\n")
    settings = continued(roberta, corpus, tmp_path, add_tokens=words)
    for run in (pretrain, count_new_words):
        with pytest.raises(ValueError, match="to a WordPiece vocabulary only; the tokenizer is a byte-level BPE"):
            run(settings)


@pytest.mark.filterwarnings("default")
def test_positions_are_those_of_the_config_if_the_tokenizer_pads_otherwise(roberta, corpus, tmp_path):
    folder = shutil.copytree(roberta, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 3}))
    with pytest.warns(
        UserWarning, match=r"pad_token_id is 3 in config\.json and 1 in the tokenizer; positions begin at 4"
    ):
        model = bert_jax.load(folder)
    settings = continued(folder, corpus, tmp_path)
    assert model_config(settings, model.tokenizer).position_offset == 4


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_vocabulary_larger_than_the_embedding_is_an_error(kind, tmp_path):
    folder = kinds.write(tmp_path, kind)
    tokens = kinds.backend(kind).get_vocab_size()
    with pytest.raises(ValueError, match=f"the vocabulary has {tokens} tokens, the embedding only {tokens - 1} rows"):
        read_vocabulary(folder, BertConfig(vocab_size=tokens - 1))
