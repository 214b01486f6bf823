"""The card says what is known of a model's training, in the hub's format, and nothing that is private or untrue."""

import json
import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from small_checkpoints import make_run, model

import bert_jax
from bert_jax.interop import add_tokens
from bert_jax.interop.model_card import MARK, card_text
from bert_jax.interop.pooling import SentenceFiles
from bert_jax.interop.run_facts import public

PRETRAINING = {
    "run": {"output": "/home/anna/runs/demo", "model": "google-bert/bert-base-uncased", "preset": "continue"},
    "text": {"corpus": ["/home/anna/secret/a.txt", "hf://datasets/anna/tales@main/x.parquet", "owl/books:en"],
             "language": "en"},
    "batches": {"objective": "mlm-nsp"},
    "training": {"batch_size": 16},
    "optimizer": {"learning_rate": 1e-4},
}  # fmt: skip
RECORD = {"settings": PRETRAINING, "versions": {"bert_jax": "1", "jax": "2"}}
ROWS = [
    {"step": 0, "eval_loss": 9.0, "eval_perplexity": 40.0, "eval_masked_lm_accuracy": 0.25,
     "eval_next_sentence_accuracy": 0.5},
    {"step": 7, "eval_loss": 1.0, "eval_perplexity": 2.0, "eval_masked_lm_accuracy": 0.9,
     "eval_next_sentence_accuracy": 0.9},
]  # fmt: skip


@pytest.fixture
def run(tmp_path, tokenizer):
    """A pretraining run with a checkpoint of step 0, as its files tell."""
    folder = make_run(tmp_path / "run", model("BertForPreTraining"))
    tokenizer.save(folder)
    (folder / "training.json").write_text(json.dumps(RECORD))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    sources = {"sources": [{"source": "/home/anna/secret/a.txt"}], "train": {"documents": 3, "tokens": 1200}}
    (folder / "data.json").write_text(json.dumps(sources))
    return folder


@pytest.fixture
def finetuned(tmp_path, tokenizer, run):
    """A fine-tuning run that started from `run`."""
    folder = tmp_path / "finetuned"
    model("BertForSequenceClassification").save_pretrained(folder)
    tokenizer.save(folder)
    settings = {"task": {"name": "classification"}, "run": {"model": str(run)}, "data": {"train": "owl/reviews"}}
    settings["training"] = {"epochs": 3, "batch_size": 8}
    (folder / "training.json").write_text(json.dumps({"settings": settings, "versions": {}}))
    (folder / "scores.json").write_text(json.dumps({"accuracy": 0.75, "matthews": 0.5, "collapsed": 0.0}))
    (folder / "README.md").unlink()
    return folder


def card_of(bert, folder, **options) -> ModelCard:
    bert.save_pretrained(folder, **options)
    return ModelCard((folder / "README.md").read_text())


def test_a_pretraining_run_is_described(run, tmp_path):
    card = card_of(bert_jax.load(run), tmp_path / "owl", license="mit")
    data = card.data.to_dict()
    assert data["base_model"] == "google-bert/bert-base-uncased"
    assert (data["pipeline_tag"], data["license"], data["language"]) == ("fill-mask", "mit", "en")
    assert data["datasets"] == ["anna/tales", "owl/books"]
    name, results = model_index_to_eval_results(data["model-index"])
    found = {(result.metric_name, result.metric_type): result.metric_value for result in results}
    assert (name, found) == (
        "owl",
        {
            ("perplexity of masked words", "perplexity"): 40.0,
            ("accuracy of masked words", "accuracy"): 0.25,
            ("accuracy of next sentences", "accuracy"): 0.5,
        },
    )
    corpus = "a.txt, hf://datasets/anna/tales@main/x.parquet, owl/books:en"
    trained = f"masked words and next sentences on {corpus} (3 documents, 1,200 tokens), from [google-bert"
    assert trained in card.text
    assert "0 steps, batches of 16, learning rate 0.0001; bert_jax 1, jax 2." in card.text
    assert "/home" not in card.content
    assert json.loads(re.search(r"```json\n(.*?)\n```", card.text, re.DOTALL)[1])["training"] == {"batch_size": 16}


def test_metrics_are_of_the_heads_that_the_model_has(run, tmp_path):
    with pytest.warns(UserWarning, match="newly initialized"):
        classifier = bert_jax.load(run, head="BertForSequenceClassification")
    assert "model-index" not in card_of(classifier, tmp_path / "new").data.to_dict()
    masked = card_of(bert_jax.load(run, head="BertForMaskedLM"), tmp_path / "masked")
    assert [result.metric_value for result in masked.data.eval_results] == [40.0, 0.25]


def test_metrics_of_changed_parameters_are_left_out(run, tmp_path):
    grown = add_tokens(bert_jax.load(run), ["quokka"])
    card = card_of(grown, tmp_path / "grown")
    assert card.data.eval_results is None
    assert "Parameters were changed after the training." in card.text


def test_a_step_that_was_not_evaluated_has_no_metrics(run, tmp_path):
    (run / "metrics.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    assert card_of(bert_jax.load(run), tmp_path / "owl").data.eval_results is None


def test_a_finetuned_model_names_the_base_of_its_base_and_its_scores(finetuned, tmp_path):
    card = card_of(bert_jax.load(finetuned), tmp_path / "owl")
    data = card.data.to_dict()
    assert data["base_model"] == "google-bert/bert-base-uncased"
    assert (data["pipeline_tag"], data["datasets"]) == ("text-classification", ["owl/reviews"])
    assert [(result.metric_type, result.metric_value) for result in card.data.eval_results] == [
        ("accuracy", 0.75),
        ("matthews_correlation", 0.5),
    ]
    assert "Fine-tuned for classification" in card.text
    assert "3 epochs" in card.text
    encoder = card_of(bert_jax.load(finetuned, head="BertModel"), tmp_path / "encoder")
    assert encoder.data.eval_results is None


def test_practice_data_are_no_dataset_of_the_hub(run, tmp_path):
    record = {"settings": {"text": {"corpus": ["practice:id"]}}, "versions": {"jax": "2"}}
    (run / "training.json").write_text(json.dumps(record))
    card = card_of(bert_jax.load(run), tmp_path / "owl")
    assert card.data.datasets is None
    assert "on practice:id" in card.text


def test_runs_that_name_each_other_end(run, tmp_path):
    settings = {**PRETRAINING, "run": {"model": str(run)}}
    (run / "training.json").write_text(json.dumps({"settings": settings}))
    assert card_of(bert_jax.load(run), tmp_path / "owl").data.base_model is None


def test_damaged_files_of_the_run_do_not_keep_a_model_from_being_saved(run, tmp_path):
    (run / "training.json").write_text("{")
    with pytest.warns(UserWarning, match=r"README\.md says nothing of the model's training: .*training\.json"):
        card = card_of(bert_jax.load(run), tmp_path / "owl")
    assert MARK in card.content


def test_a_page_of_a_person_is_kept_and_a_written_one_is_replaced(run, tmp_path):
    bert = bert_jax.load(run)
    first = card_of(bert, tmp_path / "owl")
    assert card_of(bert, tmp_path / "owl", name="anna/other").content != first.content
    (tmp_path / "owl" / "README.md").write_text("mine")
    bert.save_pretrained(tmp_path / "owl")
    assert (tmp_path / "owl" / "README.md").read_text() == "mine"


def test_the_card_goes_with_the_model_from_folder_to_folder(run, tmp_path):
    first = card_of(bert_jax.load(run), tmp_path / "a")
    again = bert_jax.load(tmp_path / "a")
    assert card_of(again, tmp_path / "b").content == first.content
    licensed = card_of(again, tmp_path / "c", license="mit")
    assert (licensed.data.license, licensed.text) == ("mit", first.text)
    assert card_of(add_tokens(again, ["quokka"]), tmp_path / "d").data.eval_results is None


@pytest.mark.parametrize("head", ["BertForMultipleChoice", "BertForNextSentencePrediction", "BertModel"])
def test_every_kind_of_model_has_a_card_without_a_run(head, tmp_path):
    card = card_of(model(head), tmp_path / "owl")
    assert "## Training" not in card.text
    assert '.load("owl")' in card.text


def test_a_model_of_sentence_vectors_is_one_of_sentence_transformers(tmp_path):
    bert = replace(model("BertModel"), sentence=SentenceFiles(tmp_path, {"modules.json": b"[]"}))
    data = ModelCard(card_text(bert, "anna/owl")).data
    assert (data.pipeline_tag, data.library_name) == ("sentence-similarity", "sentence-transformers")
    data = ModelCard(card_text(replace(bert, sentence=None), "anna/owl")).data
    assert (data.pipeline_tag, data.library_name) == ("feature-extraction", "transformers")


def test_nothing_private_is_public():
    assert public(
        {
            "a": ["~/x/y", "C:\\users\\anna\\b.txt", "s3://key:secret@bucket/c?sig=1", "texts/*.txt", 3, None],
            "b": "file:///home/anna/d.txt",
        }
    ) == {"a": ["y", "b.txt", "s3://bucket/c", "texts/*.txt", 3, None], "b": "d.txt"}
