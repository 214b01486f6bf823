"""The benchmark of continued pretraining: all sides have the same start, text, learning rate and evaluation."""

import argparse
import json

import continue_pretraining as benchmark
import numpy as np
import pytest
import small_finetuning as small
from common.held_out import HeldOutLoss, count_words, held_out_loss
from common.inputs import write_articles
from torch_extra import of_torch_extra

import bert_jax
from bert_jax.data.pretraining.token_store import tokenize_corpus
from bert_jax.data.readers.corpus import read_corpus
from bert_jax.interop.resizing import add_tokens
from bert_jax.training.optimizers import make_schedule

ROUNDING = 1e-5
STEPS = 7


def write_squad(path, articles, seed):
    """Writes articles of five short paragraphs, some with a line break inside."""
    random = np.random.default_rng(seed)
    data = [
        {"title": "t", "paragraphs": [{"context": f"{small.sentence(random, 'film')} .\n the end ."} for _ in range(5)]}
        for _ in range(articles)
    ]
    path.write_text(json.dumps({"data": data}))


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Options of a run of a few steps, with its start model and articles in the folder."""
    folder = tmp_path_factory.mktemp("continue")
    (folder / "squad").mkdir()
    write_squad(folder / "squad" / "train-v1.1.json", 9, seed=0)
    write_squad(folder / "squad" / "dev-v1.1.json", 4, seed=1)
    made = argparse.Namespace(
        model=str(small.make_model(folder / "model")),
        data=folder,
        folder=folder / "runs",
        steps=STEPS,
        rows=4,
        length=16,
        learning_rate=1e-2,
        masked_share=0.15,
        add_tokens=3,
        seeds=1,
        sides=["start", "bert_jax", "scratch"],
        turn=2,
        rounds=1,
        threads=1,
    )
    benchmark.prepare(made)
    return made


def test_an_article_is_a_document_and_a_paragraph_is_a_line(tmp_path):
    write_squad(tmp_path / "squad.json", 3, seed=0)
    write_articles(tmp_path / "squad.json", tmp_path / "articles.txt")
    documents = (tmp_path / "articles.txt").read_text().split("\n\n")
    assert [len(document.strip().split("\n")) for document in documents] == [5, 5, 5]


def test_scores_are_kept_and_the_sides_differ(options):
    with small.devices(1):
        scores = benchmark.scores_by_side(options)
    losses = {side: of_seeds[0].loss for side, of_seeds in scores.items()}
    assert len(set(losses.values())) == 3
    assert losses["bert_jax"] < losses["start"]
    assert benchmark.scores_by_side(options) == scores  # nothing is trained again


def test_words_are_counted_alike_with_a_larger_vocabulary(options):
    start = bert_jax.load(options.folder / "start")
    larger = add_tokens(start, ["theend", "ending"])
    documents = read_corpus(str(options.folder / "train.txt"), cache_dir=options.folder / "cache")
    counted = []
    for tokenizer in (start.tokenizer, larger.tokenizer):
        store = tokenize_corpus(documents, tokenizer, cache_dir=options.folder / "cache")
        counted.append(count_words(store, tokenizer.continuation))
    text = (options.folder / "train.txt").read_text()
    assert counted == [len(text.split())] * 2


def test_a_loss_per_word_is_the_loss_of_its_tokens():
    scores = [HeldOutLoss(loss, 2 * loss, tokens_per_word=1.5) for loss in (2.0, 3.0)]
    row = benchmark.format_scores({"bert_jax": scores})[-1]
    assert row == "| bert_jax | 2.000, 3.000 | 2.500 ± 0.707 | 1.500 | 3.750 ± 1.061 | 7.500 ± 2.121 |"


def test_speed_counts_real_tokens_of_the_prepared_loop(options):
    alone = argparse.Namespace(**{**vars(options), "sides": ["bert_jax"]})
    with small.devices(1):
        rates, tokens = benchmark.measure_speed(alone)
    assert rates.keys() == {"bert_jax"}
    assert rates["bert_jax"][0] > 0
    assert 0 < tokens["bert_jax"] < options.rows * options.length  # a run of sentences leaves room in its row


def test_blocks_hold_all_paragraphs_in_order(options):
    of_torch_extra("torch")
    of_torch_extra("transformers")
    from common.run_mlm import masked_words

    paragraphs = (options.folder / "train.txt").read_text().split("\n")
    task = masked_words(str(options.folder / "start"), paragraphs, max_length=16, masked_share=0.15)
    assert {len(block["input_ids"]) for block in task.train} == {16}
    tokenizer = bert_jax.load(options.folder / "start").tokenizer
    sequences = [[tokenizer.cls_id, *tokenizer.encode_flat([text])[0], tokenizer.sep_id] for text in paragraphs]
    joined = [int(token) for ids in sequences for token in ids]
    assert [token for block in task.train for token in block["input_ids"]] == joined[: len(task.train) * 16]
    assert len(joined) - len(task.train) * 16 < 16


def test_the_trainer_has_our_start_and_learning_rates(options, tmp_path):
    of_torch_extra("torch")
    of_torch_extra("transformers")
    trainer, tokens = benchmark.make_trainer(options, 0, tmp_path)
    trainer.save_model(str(tmp_path))
    start = bert_jax.load(options.folder / "start")
    start.tokenizer.save(tmp_path)
    corpus = options.folder / "held-out.txt"
    before, after = (
        held_out_loss(model, corpus, max_length=16, masked_share=0.15) for model in (options.folder / "start", tmp_path)
    )
    assert after == pytest.approx(before, rel=ROUNDING)
    assert 0 < tokens <= options.rows * options.length

    ours = benchmark.settings_of("bert_jax", options, 0, tmp_path).optimizer
    schedule = make_schedule(
        ours.schedule, peak=ours.learning_rate, warmup_steps=ours.warmup_steps, decay_steps=ours.decay_steps
    )
    trainer.create_optimizer()
    rate = trainer.create_scheduler(STEPS).lr_lambdas[0]
    rates = [options.learning_rate * rate(step) for step in range(STEPS)]
    np.testing.assert_allclose(rates, np.asarray(schedule(np.arange(STEPS))), rtol=ROUNDING)
