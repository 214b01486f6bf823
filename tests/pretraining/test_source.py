"""Pretraining that continues from a model: its weights, architecture and tokenizer; what it lacks is new and named."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_families
from datasets import Dataset
from small_runs import SMALL, write_corpus

import bert_jax
import train as script
from bert_jax.cli.programs import parse_pretraining
from bert_jax.models import BertForPreTraining
from bert_jax.pretraining import source as source_module
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.model import model_config
from bert_jax.pretraining.plan import phase_spec
from bert_jax.pretraining.presets import make_settings
from bert_jax.pretraining.program import make_layout
from bert_jax.pretraining.source import add_new_words, read_source
from bert_jax.text.tokenizer import Tokenizer

ARCHITECTURE = ("--preset", "--num-hidden-layers", "--hidden-size", "--num-attention-heads", "--intermediate-size")
OTHERS = [
    text
    for flag, value in zip(SMALL[0:-1:2], SMALL[1:-1:2], strict=True)
    if flag not in (*ARCHITECTURE, "--vocab-size")
    for text in (flag, value)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def texts(folder):
    return ["--corpus", str(write_corpus(folder / "films.txt")), "--cache-dir", str(folder / "cache"), "--quiet"]


@pytest.fixture(scope="module")
def other_texts(folder):
    """A corpus with two words that the source's vocabulary does not have, one of them more often than the other."""
    text = (folder / "films.txt").read_text().replace("film", "quokka").replace("a story", "a wombat")
    (folder / "animals.txt").write_text(text)
    return ["--corpus", str(folder / "animals.txt"), "--cache-dir", str(folder / "cache"), "--quiet"]


@pytest.fixture(scope="module")
def source(folder, texts):
    """A run of two steps."""
    script.main([*SMALL, *texts, "--steps", "2", "--output", str(folder / "source")])
    return folder / "source"


@pytest.fixture
def continue_from(texts):
    def run(model, output, *flags):
        script.main([*OTHERS, *texts, "--model", str(model), "--output", str(output), *flags])
        return output

    return run


def require_equal(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_its_source(continue_from, source, tmp_path, capsys):
    """The learning rate of the first step is 0."""
    run = continue_from(source, tmp_path / "run", "--steps", "1", "--hidden-dropout-prob", "0.3")
    begun, before = (bert_jax.load(one) for one in (run, source))
    require_equal(begun.params, before.params)
    assert begun.tokenizer.fingerprint == before.tokenizer.fingerprint
    assert begun.config == replace(before.config, hidden_dropout_prob=0.3)
    assert "newly initialized: nothing; the optimizer starts at zero" in capsys.readouterr().out


@pytest.mark.slow
def test_parts_that_the_source_lacks_are_new_and_named(continue_from, source, tmp_path, capsys):
    bert_jax.load(source, head="BertForTokenClassification", new_head=True, num_labels=3).save_pretrained(
        tmp_path / "tagger"
    )
    run = continue_from(tmp_path / "tagger", tmp_path / "run", "--steps", "1")
    output = capsys.readouterr().out
    assert "newly initialized: masked_lm, next_sentence, pooler; not used: classifier; the optimizer" in output
    begun = bert_jax.load(run)
    assert isinstance(begun.model, BertForPreTraining)
    assert begun.config.num_labels == 2  # those of the classifier are gone
    for part in ("embeddings", "encoder"):
        require_equal(begun.params[part], bert_jax.load(source).params[part])


def test_a_name_on_the_hub_is_looked_up_once_in_a_run(source, monkeypatch):
    looked_up = []
    monkeypatch.setattr(source_module, "locate", lambda name: looked_up.append(name) or source)
    for run in (1, 2):
        settings = make_settings(model="owner/owl", corpus=("texts.txt",))
        check(settings)
        read_source(settings)
        assert looked_up == ["owner/owl"] * run


@pytest.mark.slow
def test_a_continued_run_resumes_to_the_bit_without_its_source(continue_from, source, tmp_path):
    copied = shutil.copytree(source, tmp_path / "source")
    whole = continue_from(copied, tmp_path / "whole", "--steps", "4")
    halves = continue_from(copied, tmp_path / "halves", "--steps", "2")
    shutil.rmtree(copied)
    assert make_settings(model=copied, output=halves, resume=True).model == bert_jax.load(halves).config
    continue_from(copied, halves, "--steps", "4", "--resume")
    require_equal(bert_jax.load(whole).params, bert_jax.load(halves).params)


@pytest.mark.slow
def test_new_words_are_found_and_begin_as_the_mean_of_their_pieces(source, other_texts, tmp_path, capsys):
    flags = [*OTHERS, *other_texts, "--model", str(source), "--output"]
    script.main([*flags, str(tmp_path / "whole"), "--steps", "4", "--add-tokens", "2"])
    assert "vocabulary: 2 new words: " in capsys.readouterr().out
    (tmp_path / "words.txt").write_text("Quokka\n\nwombat\n")
    script.main([*flags, str(tmp_path / "halves"), "--steps", "1", "--add-tokens", str(tmp_path / "words.txt")])
    assert "words.txt: 2 new words, 1 blank line skipped, 1 word normalized as in texts" in capsys.readouterr().out

    before = bert_jax.load(source)
    begun = bert_jax.load(tmp_path / "halves")  # after a step with a learning rate of 0
    assert begun.tokenizer.tokens == [*before.tokenizer.tokens, "quokka", "wombat"]
    for row, word in enumerate(("quokka", "wombat"), start=before.config.vocab_size):
        pieces = before.tokenizer.encode_flat([word])[0]
        pieces = pieces[pieces != before.tokenizer.unk_id]
        for leaf in (
            lambda params: params["embeddings"]["word"]["embedding"],
            lambda params: params["masked_lm"]["bias"],
        ):
            mean = leaf(before.params)[pieces if len(pieces) else slice(None)].mean(0)
            np.testing.assert_allclose(leaf(begun.params)[row], mean, rtol=1e-6, atol=1e-8)
    report = json.loads((tmp_path / "halves" / "data.json").read_text())["new_words"]
    assert report["tokens_before"] > report["tokens_after"]

    script.main([*flags, str(tmp_path / "halves"), "--steps", "4", "--resume"])
    assert json.loads((tmp_path / "halves" / "data.json").read_text())["new_words"] == report
    require_equal(bert_jax.load(tmp_path / "whole").params, bert_jax.load(tmp_path / "halves").params)


@pytest.mark.slow
def test_rows_of_the_embedding_without_a_token_are_kept(continue_from, source, tmp_path):
    """Released models have such rows."""
    loaded = bert_jax.load(source)
    rows = loaded.config.vocab_size + 2  # as with the two new words above, for the same programs
    config, params = bert_jax.interop.resizing.resize_vocabulary(loaded.config, loaded.params, rows)
    replace(loaded, model=loaded.model.clone(config=config), params=params).save_pretrained(tmp_path / "padded")
    run = continue_from(tmp_path / "padded", tmp_path / "run", "--steps", "1")
    assert bert_jax.load(run).config.vocab_size == rows > bert_jax.load(run).tokenizer.vocab_size
    continue_from(tmp_path / "padded", run, "--steps", "2", "--resume")


@pytest.fixture(scope="module")
def model(source, folder):
    """The source with position embeddings for 40 tokens."""
    loaded = bert_jax.load(source)
    positions = {"embedding": loaded.params["embeddings"]["position"]["embedding"][:40]}
    params = dict(loaded.params) | {"embeddings": dict(loaded.params["embeddings"]) | {"position": positions}}
    config = replace(loaded.config, max_position_embeddings=40)
    replace(loaded, model=loaded.model.clone(config=config), params=params).save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 32}, r"`hidden_size=32` contradicts .*model, where it is 16: leave it out"),
        ({"vocab_size": 99}, r"`vocab_size=99` contradicts .*model, where it is \d+: leave it out"),
        ({"hidden_act": "relu"}, r"`hidden_act=relu` contradicts .*model, where it is gelu: leave it out"),
        ({"max_length": 41}, r"`max_length=41` exceeds the position embeddings: `max_position_embeddings=40`"),
        ({"tokenizer": "here.txt"}, r"`tokenizer` cannot be combined with `model`"),
        ({"output": "."}, r"`model`: .*model is in `output`"),
        ({"add_tokens": 0}, r"`add_tokens` must be at least 1, or a file, got 0"),
        ({"add_tokens": "there.txt"}, r"`add_tokens`: there.txt is neither a number nor a file"),
        ({"decay_share": 0.2}, r"`decay_share` is only used with `schedule=warmup-stable-decay`"),
        (
            {"decay_share": 0.95, "schedule": "warmup-stable-decay"},
            r"`warmup_steps=10000` reaches into the decay, the last `decay_share=0.95` of `decay_steps=100000`",
        ),
    ],
)
def test_settings_that_contradict_the_source_are_refused(model, changes, message, monkeypatch):
    monkeypatch.chdir(model.parent)
    (model.parent / "here.txt").touch()
    with pytest.raises(ValueError, match=message):
        check(make_settings(model=model, **changes))


def test_a_source_has_its_own_defaults(model):
    for settings in (make_settings(model=model), parse_pretraining(["--model", str(model)])):
        check(settings)
        assert settings.run.preset == "continue"
        assert settings.optimizer.learning_rate == 5e-5
        assert settings.batches.max_length == 40  # all that its position embeddings allow
        assert settings.model.hidden_size == 16
    settings = make_settings("base", model=model, dtype="bfloat16", attention_probs_dropout_prob=0.0)
    check(settings)
    assert settings.optimizer.learning_rate == 1e-4
    assert settings.training.phases == ()


def test_only_learned_positions_limit_the_rows(model, tmp_path):
    with_config(shutil.copytree(model, tmp_path / "model"), position_embedding_type="sinusoidal")
    settings = make_settings("base", model=tmp_path / "model")
    check(settings)
    assert settings.batches.max_length == 512
    assert settings.training.phases


def test_sentence_pairs_need_two_token_types(model, tmp_path):
    with_config(shutil.copytree(model, tmp_path / "model"), type_vocab_size=1)
    with pytest.raises(ValueError, match=r"model has one token type.*; set `objective=mlm`"):
        check(make_settings(model=tmp_path / "model"))
    check(make_settings(model=tmp_path / "model", objective="mlm"))


def test_sentence_pairs_need_a_family_with_that_head(model, tmp_path):
    with_config(shutil.copytree(model, tmp_path / "model"), model_type="electra")
    with pytest.raises(ValueError, match=r"model has no next-sentence head, as any ELECTRA: set `objective=mlm`"):
        check(make_settings(model=tmp_path / "model"))
    check(make_settings(model=tmp_path / "model", objective="mlm"))


def test_the_run_to_resume_is_that_of_the_preset(model, tmp_path, monkeypatch):
    """Without --output, a run that continues from a model is in runs/continued, not in the demo's folder."""
    monkeypatch.chdir(tmp_path)
    for name, steps in (("demo", 3), ("continued", 5)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        record = {"settings": {"training": {"steps": steps}}}
        (tmp_path / "runs" / name / "training.json").write_text(json.dumps(record))
    assert make_settings(model=model, resume=True).training.steps == 5
    assert parse_pretraining(["--model", str(model), "--resume"]).training.steps == 5
    assert make_settings(resume=True).training.steps == 3


def test_a_source_that_cannot_be_continued_is_refused(model, tmp_path, continue_from):
    with pytest.raises(ValueError, match=r"`model` must be str \| None, got 3"):
        make_settings(model=3)
    with pytest.raises(ValueError, match="--preset continue needs --model, the model to continue from"):
        script.main(["--preset", "continue"])
    with pytest.raises(ValueError, match="--add-tokens is only used with --model"):
        script.main(["--add-tokens", "3"])
    (tmp_path / "words.txt").write_text("quokka\nthe\n")
    with pytest.raises(ValueError, match=r"words\.txt:2: 'the' is in the vocabulary already"):
        continue_from(model, tmp_path / "run", "--add-tokens", str(tmp_path / "words.txt"))
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="no config"):
        continue_from(tmp_path / "none", tmp_path / "run")
    for name, damage, message in (
        ("no vocabulary", lambda folder: [path.unlink() for path in folder.glob("*ok*")], "has no vocabulary"),
        ("few tokens", lambda folder: embed(folder, 300), "the vocabulary has .* tokens, the embedding 300 rows"),
        ("other", lambda folder: with_config(folder, model_type="gpt2"), "gpt2"),
    ):
        folder = shutil.copytree(model, tmp_path / name)
        (folder / "vocab.txt").unlink(missing_ok=True)
        damage(folder)
        with pytest.raises(ValueError, match=message):
            continue_from(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def embed(folder, rows):
    loaded = bert_jax.load(folder)
    config, params = bert_jax.interop.resizing.resize_vocabulary(loaded.config, loaded.params, rows)
    replace(loaded, model=loaded.model.clone(config=config), params=params).save_pretrained(folder)


def with_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.slow
def test_a_plan_counts_the_new_words_of_a_file(source, tmp_path):
    (tmp_path / "words.txt").write_text("quokka\nwombat\n")
    for words, count in ((None, 0), (5, 5), (str(tmp_path / "words.txt"), 2)):
        settings = make_settings(model=str(source), add_tokens=words, max_length=16)
        run = phase_spec(settings, settings.phases[0], make_layout(settings))
        assert run.model.config.vocab_size == bert_jax.load(source).config.vocab_size + count


@pytest.mark.parametrize(("wanted", "said"), [(1, False), (2, True)])
def test_fewer_new_words_than_asked_for_are_reported(source, capsys, wanted, said):
    settings = make_settings(model=str(source), add_tokens=wanted, objective="mlm")
    bert = read_source(settings)
    assert bert is not None
    _, report = add_new_words(settings, bert, Dataset.from_dict({"text": ["zyxzyx"] * 9 + ["qqzzqq"]}))
    assert report is not None
    assert report.new_words == 1
    assert ("no more than 1:" in capsys.readouterr().out) == said


def test_help_needs_no_model(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_pretraining(["--model", "nowhere", "--help"])
    assert stopped.value.code == 0
    assert "--add-tokens" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_texts_are_lowercased_as_a_sentence_transformers_folder_asks(kind, tmp_path):
    """The tokenizer that is saved with the run lowercases by itself."""
    tiny_families.bert("roberta", kind).save_pretrained(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "sentence_roberta_config.json").write_text(json.dumps({"do_lower_case": True}))
    bert = read_source(make_settings(model=tmp_path, objective="mlm"))
    assert bert is not None
    bert.tokenizer.save(tmp_path / "saved")
    for tokenizer in (bert.tokenizer, bert_jax.load(tmp_path).tokenizer, Tokenizer.load(tmp_path / "saved")):
        ids = [tokenizer.encode_flat([text])[0].tolist() for text in ("An OWL in Noël", "an owl in noël")]
        assert (ids[0] == ids[1]) == (tokenizer.fingerprint == bert.tokenizer.fingerprint)


def test_the_padding_of_a_source_decides_its_positions(tmp_path):
    """RoBERTa's first position is pad_token_id + 1, whatever token the tokenizer pads with."""
    tiny_families.bert("roberta", "wordpiece", pad_token_id=1).save_pretrained(tmp_path)
    settings = make_settings(model=tmp_path, objective="mlm")
    with pytest.warns(UserWarning, match=r"pad_token_id is 1 in config.json and 0 in the tokenizer"):
        words = bert_jax.load(tmp_path).tokenizer
    assert words.pad_id == 0
    config = model_config(settings, words)
    assert config == settings.model
    assert config.position_offset == 2


def test_rows_must_fit_the_positions_that_the_tokenizer_leaves():
    settings = make_settings("tiny", model_type="roberta", max_position_embeddings=40, max_length=39)
    words = tiny_families.tokenizer("bpe")
    with pytest.raises(ValueError, match=r"`max_length=39` exceeds the 38 positions .* with padding token 1"):
        model_config(settings, words)
    assert model_config(settings.replace(max_length=38), words).max_length == 38
