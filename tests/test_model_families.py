"""Every family does what docs/models.md says: the page's table is the list of these tests, "no" is a refusal.

One task per family is fine-tuned, interrupted and resumed for real, and one family is pretrained further. The other
pairs of a family and a task are traced: real texts in real batches, of which only the shapes are computed.
"""

import json
import re
import shutil
import signal
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_finetuning
import tiny_families as tiny
from gradient_checks import NEGLIGIBLE_IN_FLOAT32, assert_leaves_agree
from jax import export as jax_export
from small_checkpoints import assert_same_bits, edit_config, edit_weights
from small_runs import write_corpus

import bert_jax
from bert_jax import finetuning, pretraining
from bert_jax.cli.inspection import inspect, report
from bert_jax.config import BertConfig
from bert_jax.doctor.checkpoints import examine_model
from bert_jax.families import FAMILIES
from bert_jax.finetuning.model import optimizer_and_schedule
from bert_jax.finetuning.settings import Settings
from bert_jax.finetuning.trainer import Trainer
from bert_jax.functional import lora
from bert_jax.interop.heads import architecture, init_parts
from bert_jax.pipelines import (
    Embedder,
    FillMask,
    MultipleChoice,
    QuestionAnswerer,
    TextClassifier,
    TokenClassifier,
)
from bert_jax.pipelines.batching import Batcher
from bert_jax.pretraining.checks import check as check_pretraining
from bert_jax.pretraining.plan import phase_spec
from bert_jax.pretraining.source import read_source
from bert_jax.tasks.source import ModelSource
from bert_jax.training.devices import parallel
from bert_jax.training.loop import Milestones
from bert_jax.training.objectives import masked_lm
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.interruption import Interrupted
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step

pytestmark = pytest.mark.filterwarnings("ignore:.*newly initialized")

PAGE = Path(__file__).parents[1] / "docs/models.md"
TEXT = "The café's owner sold 17 cups of tea to Anna Smith."
SAME_OUTPUTS = 2e-5
SAME_GRADIENT = 2e-5
PIPELINES = {
    "classification": (TextClassifier, {"text": TEXT, "text_pair": "an owl"}),
    "tokens": (TokenClassifier, TEXT),
    "squad": (QuestionAnswerer, {"question": "who sold tea?", "context": TEXT}),
    "multiple-choice": (MultipleChoice, {"text": "An owl", "choices": ["an owl", "tea"]}),
}
# What the fine-tuning of a family is asked besides its task.
VARIANTS = ({"lora_rank": 2}, {"freeze": 1}, {"layer_decay": 0.5}, {"pack": False})


@cache
def table() -> dict[str, dict[str, str]]:
    """The table of the page: what is supported -> model_type -> yes or no."""
    text = PAGE.read_text(encoding="utf-8").split("## What is supported")[1].split("\n## ")[0]
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    families = [name.strip("`") for name in header[1:]]
    return {name: dict(zip(families, cells, strict=True)) for name, *cells in lines}


class Place:
    """A family's checkpoint, and files for every task."""

    def __init__(self, model_type: str, folder: Path, data: Path) -> None:
        self.model_type = model_type
        self.family = FAMILIES[model_type]
        self.number = [*FAMILIES].index(model_type)
        self.folder = tiny.write(model_type, folder / "model")
        self.scratch = folder
        self.data = data

    @property
    def chosen_task(self) -> str:
        """The task that is fine-tuned for real."""
        return [*PIPELINES][self.number % len(PIPELINES)]

    def settings(self, task: str, **changes) -> Settings:
        end = small_finetuning.ENDS[task]
        files = {name: str(self.data / f"{name}{end}") for name in ("train", "dev")}
        length = tiny.POSITIONS if task == "squad" else 32
        sizes = {"epochs": 2, "batch_size": 8, "max_length": length, "learning_rate": 1e-2, "quiet": True}
        return finetuning.make_settings(task, model=str(self.folder), **files | sizes | changes)

    def trainer(self, task: str) -> Trainer:
        """Everything of a fine-tuning but its compiled step."""
        settings = self.settings(task)
        source = ModelSource.find(settings.run.model)
        data = settings.data.prepare(source, "train")
        bert = source.load(data.task.model, data.task.config_changes)
        layout = parallel.make_layout(devices=jax.devices()[:1])
        return Trainer(settings.with_length(), data, bert, layout, None)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, count, seed in (("train", 16, 0), ("dev", 5, 1)):
        small_finetuning.reviews(folder / f"{name}.tsv", count, seed)
        small_finetuning.tagged(folder / f"{name}.conll", count, seed)
        small_finetuning.questions(folder / f"{name}.json", count, seed)
        small_finetuning.choices(folder / f"{name}.jsonl", count, seed)
    write_corpus(folder / "films.txt")
    return folder


@pytest.fixture(scope="session")
def places(tmp_path_factory, data):
    """model_type -> its place, made once."""
    return cache(lambda model_type: Place(model_type, tmp_path_factory.mktemp(model_type), data))


def traced(self, static):
    """Instead of `Batcher.compile`: a function that returns zeros of the shapes that the program would return."""

    def run(params, batch, arrays):
        shapes = jax.eval_shape(partial(self.function, **static), params, batch, **arrays)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    return run


def answer(pipeline, given):
    """What a pipeline makes of a text if the model's outputs are zeros."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batcher, "compile", traced)
        return pipeline(given)


# The rows of the table


def loads_and_saves(place):
    bert = bert_jax.load(place.folder)
    bert.save_pretrained(place.scratch / "again")
    again = bert_jax.load(place.scratch / "again")
    assert again.config == bert.config
    assert_same_bits(again.params, bert.params)
    assert again.tokenizer.fingerprint == bert.tokenizer.fingerprint
    values = json.loads((place.scratch / "again/config.json").read_text())
    assert values["model_type"] == place.model_type
    assert values["architectures"] == [architecture(type(bert.model), place.model_type)]


def reads_any_tokenizer(place):
    for kind in tiny.kinds.KINDS:
        bert = tiny.bert(place.model_type, kind)
        rows = bert.tokenizer([TEXT, "an"], ["owl", "Is that so?"])
        shapes = jax.eval_shape(partial(bert.model.apply, {"params": bert.params}), **rows)
        assert shapes["prediction_logits"].shape == (*rows["input_ids"].shape, bert.tokenizer.vocab_size)
        assert rows["input_ids"].shape[1] < bert.config.max_length
        assert rows["token_type_ids"].max() < max(bert.config.type_vocab_size, 2)


def fills_masks(place):
    bert = bert_jax.load(place.folder)
    mask = bert.tokenizer.mask_token
    assert len(answer(FillMask(bert), f"The {mask} sold tea")) == 5


def predicts_next_sentences(place):
    model = bert_jax.load(place.folder, head="BertForNextSentencePrediction").model
    assert jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))


def is_trained_for(task, place):
    """Reads the data, makes a batch, traces loss and gradient, and answers a text with the trained head."""
    trainer = place.trainer(task)
    model = trainer.bert.model
    objective = trainer.task.objective(model)
    batch = trainer.batches[0](0)

    def loss(params):
        metrics = objective.loss_and_metrics(params, batch, jax.random.key(1))
        return sum(metrics[name][0] for name in objective.losses)

    gradient = jax.eval_shape(jax.grad(loss), trainer.bert.params)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, trainer.bert.params)
    pipeline, given = PIPELINES[task]
    assert answer(pipeline(trainer.bert), given) is not None
    if task == place.chosen_task:
        is_fine_tuned(place)


def is_fine_tuned(place):
    """For real; in every second family also interrupted after an epoch and resumed, which gives the same model."""
    task = place.chosen_task
    variant = VARIANTS[place.number % len(VARIANTS)]
    pipeline, given = PIPELINES[task]
    with small_finetuning.devices(1):
        whole = finetuning.finetune(place.settings(task, output=str(place.scratch / "whole"), **variant))
        if place.number % 2:
            halves = str(place.scratch / "halves")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Milestones, "reach", interrupted_at_the_second_step)
                with pytest.raises(Interrupted):
                    finetuning.finetune(place.settings(task, output=halves, **variant))
            again = {"model": str(place.folder), "output": halves, "resume": True}
            resumed = finetuning.finetune(finetuning.make_settings(task, **again))
            assert_same_bits(resumed.model.params, whole.model.params)
            assert resumed.metrics == whole.metrics
    assert whole.model.config.model_type == place.model_type
    assert whole.model.config.lora_rank == 0
    assert pipeline(whole.model)(given) is not None


def interrupted_at_the_second_step(self, state, step, reach=Milestones.reach):
    """Instead of `Milestones.reach`."""
    self.session.interruption.received = signal.SIGTERM if step == 2 else None
    return reach(self, state, step)


def embeds(place):
    bert = bert_jax.load(place.folder, head="BertModel") if place.family.has_pooler else bert_jax.load(place.folder)
    for pooling in ("mean", "cls", "max"):
        assert answer(Embedder(bert, pooling=pooling, normalize=False), [TEXT, "an owl"]).shape == (2, 8)


def masked_batch(bert, rows=4, seed=0):
    """Rows of two packed sequences, of 3 and 5 tokens, with two masks each, and padding."""
    random = np.random.default_rng(seed)
    number = np.array([1] * 3 + [2] * 5 + [0])
    ids = np.where(number > 0, random.integers(5, bert.tokenizer.vocab_size, (rows, 9)), bert.tokenizer.pad_id)
    fixed = {
        "attention_mask": number,
        "position_ids": np.array([0, 1, 2, 0, 1, 2, 3, 4, 0]),
        "masked_positions": np.array([1, 4]),
    }
    batch = {name: np.broadcast_to(row, (rows, len(row))).astype(np.int32) for name, row in fixed.items()}
    return batch | {
        "input_ids": ids.astype(np.int32),
        "token_type_ids": np.zeros((rows, 9), np.int32),
        "masked_labels": random.integers(5, bert.tokenizer.vocab_size, (rows, 2)).astype(np.int32),
        "masked_weights": np.ones((rows, 2), np.float32),
    }


def packs_rows(place):
    """The logits of packed sequences are those of the same sequences in rows of their own, of the same shape."""
    bert = bert_jax.load(place.folder, head="BertForMaskedLM")
    batch = masked_batch(bert, rows=1)
    inputs = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    packed = {name: np.repeat(batch[name], 2, axis=0) for name in inputs}
    separate = {name: np.zeros_like(rows) for name, rows in packed.items()} | {"input_ids": packed["input_ids"] * 0 + 7}
    for row, (start, stop) in enumerate([(0, 3), (3, 8)]):
        separate["input_ids"][row, : stop - start] = batch["input_ids"][0, start:stop]
        separate["attention_mask"][row, : stop - start] = 1
        separate["position_ids"][row] = np.arange(9)
    got, want = (bert(**rows).prediction_logits for rows in (packed, separate))
    np.testing.assert_allclose(got[0, :3], want[0, :3], atol=SAME_OUTPUTS, rtol=0)
    np.testing.assert_allclose(got[1, 3:8], want[1, :5], atol=SAME_OUTPUTS, rtol=0)


def computes_on_several_devices(place):
    """A step of gradient descent on 8 devices, parameters and rows split, is that of one device; saved, it is equal."""
    bert = bert_jax.load(place.folder, head="BertForMaskedLM")
    optimizer = optax.sgd(1.0)
    step = partial(train_step, objective=masked_lm(bert.model), optimizer=optimizer)
    batch = masked_batch(bert)
    start = jax.device_get(bert.params)  # a step donates its state

    def moved(layout):
        state = TrainState.create(start, optimizer, key=jax.random.key(7))
        state = jax.device_put(state, layout.shardings(state))
        return layout.compile_step(step, state)(state, layout.device_put(batch))[0]

    one = moved(parallel.make_layout(devices=jax.devices()[:1]))
    eight = moved(parallel.make_layout(fsdp=2, tensor=2))
    kernel = eight.params["encoder"]["feed_forward"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 4, 6)  # of [2, 8, 12]: fsdp 2 x tensor 2
    assert_leaves_agree(
        *(
            jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.params, bert.params)
            for state in (eight, one)
        ),
        SAME_GRADIENT,
        negligible=NEGLIGIBLE_IN_FLOAT32,
    )
    with Checkpoints(place.scratch / "state") as checkpoints:
        checkpoints.save(eight, {"row": 3})
    with Checkpoints(place.scratch / "state") as checkpoints:
        restored, position = checkpoints.restore(eight)
    assert position == {"row": 3}
    assert_same_bits(*(jax.device_get(state.params) for state in (restored, eight)))


def trains_adapters(place):
    """On the same kernels in every family; at first they change nothing, and merged they are the same function."""
    config = tiny.config(place.model_type, lora_rank=2)
    bert = bert_jax.load(place.folder)
    adapters = init_parts(config, {"adapters"}, "float32", 3)["adapters"]["encoder"]
    scale = config.lora_alpha / config.lora_rank
    assert_same_bits(lora.merge(bert.params["encoder"], adapters, scale=scale), bert.params["encoder"])
    adapters = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), adapters)
    merged = lora.merge(bert.params["encoder"], adapters, scale=scale)
    for path, leaf in jax.tree_util.tree_leaves_with_path(merged):
        before = bert.params["encoder"][path[0].key][path[1].key][path[2].key]
        is_adapted = path[-1].key == "kernel"
        np.testing.assert_allclose(leaf - before, 0.01 * 2 * scale if is_adapted else 0.0, atol=1e-6)


def updates(place, head, **training):
    """The update of each leaf for gradients of one, without the schedule: its factor of the learning rate."""
    bert = bert_jax.load(place.folder, head=head, new_head=True)
    settings = place.settings("classification", weight_decay=0.0, schedule="constant", warmup_share=0.0, **training)
    optimizer, _ = optimizer_and_schedule(settings, 10, 2)
    ones = jax.tree.map(np.ones_like, bert.params)

    def update(params):
        updates, _ = optimizer.update(ones, optimizer.init(params), params)
        top = jax.tree.leaves(updates[bert.model.parts_above(bert.config)[-1]])[0].reshape(-1)[0]
        return jax.tree.map(lambda leaf: leaf / top, updates)

    return jax.device_get(jax.jit(update)(bert.params))


def freezes(place):
    found = updates(place, "BertForMultipleChoice", freeze=1)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(found["embeddings"]))
    for leaf in jax.tree.leaves(found["encoder"]):
        assert (leaf[0] == 0).all()
        np.testing.assert_allclose(leaf[1], 1, rtol=1e-5)


def decays_by_layer(place):
    found = updates(place, "BertForSequenceClassification", layer_decay=0.5)
    for part, leaves in found.items():
        factors = {"encoder": [0.25, 0.5], "embeddings": [0.125]}.get(part, [1.0])
        for leaf in jax.tree.leaves(leaves):
            for one, factor in zip(leaf if part == "encoder" else [leaf], factors, strict=True):
                np.testing.assert_allclose(one, factor, rtol=1e-5)


def pretraining_settings(place, **changes):
    sizes = {"steps": 4, "batch_size": 8, "max_length": 24, "warmup_steps": 1, "decay_steps": 9, "objective": "mlm"}
    files = {"corpus": (str(place.data / "films.txt"),), "cache_dir": str(place.data / "cache"), "quiet": True}
    return pretraining.make_settings(model=str(place.folder), **sizes | files | changes)


def is_pretrained_further(place):
    settings = pretraining_settings(place)
    check_pretraining(settings)
    spec = phase_spec(settings, settings.phases[0], parallel.make_layout(devices=jax.devices()[:1]))
    state, metrics = jax.eval_shape(partial(spec.step(spec.model), axis=None), spec.state, spec.batch(8))
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, dict(spec.state.params))
    assert "masked_lm_loss" in metrics
    if place.model_type == "roberta":  # for real, and resumed without the model
        outputs = [str(place.scratch / name) for name in ("continued", "continued halves")]
        with small_finetuning.devices(1):
            whole = pretraining.pretrain(pretraining_settings(place, output=outputs[0]))
            pretraining.pretrain(pretraining_settings(place, output=outputs[1], steps=2))
            resumed = pretraining.make_settings(output=outputs[1], resume=True, steps=4)
            halves = pretraining.pretrain(resumed)
        assert_same_bits(halves.model.params, whole.model.params)
        assert whole.model.config.pad_token_id == 1


def is_exported(place):
    bert = bert_jax.load(place.folder)
    path = place.scratch / "bert.stablehlo"
    bert.export(path, platforms=["cpu"])
    exported = jax_export.deserialize(path.read_bytes())
    assert len(exported.in_avals) == 3
    if place.model_type == "electra":
        rows = bert.tokenizer([TEXT, "an owl"])
        got = exported.call(*(rows[name] for name in ("input_ids", "attention_mask", "token_type_ids")))
        np.testing.assert_allclose(got["prediction_logits"], bert(**rows).prediction_logits, atol=SAME_OUTPUTS)


CHECKS = {
    "load and save": loads_and_saves,
    "any tokenizer": reads_any_tokenizer,
    "masked words": fills_masks,
    "next sentence": predicts_next_sentences,
    "classification": partial(is_trained_for, "classification"),
    "tagging": partial(is_trained_for, "tokens"),
    "question answering": partial(is_trained_for, "squad"),
    "multiple choice": partial(is_trained_for, "multiple-choice"),
    "embedding": embeds,
    "packed rows": packs_rows,
    "several devices": computes_on_several_devices,
    "LoRA": trains_adapters,
    "freezing": freezes,
    "layer-wise learning rates": decays_by_layer,
    "continued pretraining": is_pretrained_further,
    "export": is_exported,
}


def test_the_table_has_every_family_and_every_check():
    assert [*table()] == [*CHECKS]
    for name, cells in table().items():
        assert [*cells] == [*FAMILIES], name
        assert set(cells.values()) <= {"yes", "no"}, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CHECKS)
def test_the_table_is_true(name, family, places):
    if table()[name][family] == "yes":
        CHECKS[name](places(family))
    else:
        with pytest.raises(ValueError, match=f"{FAMILIES[family].title} has no "):
            CHECKS[name](places(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_inspect_and_doctor_name_family_and_tokenizer(family, places):
    place = places(family)
    words = bert_jax.load(place.folder).tokenizer
    found = inspect(str(place.folder))
    kind = {"wordpiece": "WordPiece", "bpe": "byte-level BPE", "unigram": "Unigram"}
    assert found["family"] == place.family.title
    assert found["tokenizer"] == {
        "kind": kind[tiny.KIND_OF_FAMILY.get(family, "wordpiece")],
        "size": words.vocab_size,
        "special_tokens": words.roles,
        "max_length": None,
    }
    lines = report(found)
    assert re.search(rf"^family +{place.family.title}$", lines, re.MULTILINE)
    assert f"{found['tokenizer']['kind']}, {words.vocab_size} tokens (pad {words.roles['pad']}, " in lines
    said = [finding.text for finding in examine_model(place.folder)]
    assert any(text.endswith(f", a {place.family.title}") for text in said)
    assert any(text.startswith(f"{found['tokenizer']['kind']} vocabulary of {words.vocab_size}") for text in said)


# What the page lists as refused


def refusals(place, edited):
    """What is refused, in the words of the page -> what raises the error."""

    def load(changes=None, edit=None):
        return bert_jax.load(edited(changes or {}, edit))

    def untie(tensors):
        word = tensors["roberta.embeddings.word_embeddings.weight"]
        return tensors | {"lm_head.decoder.weight": word + np.float32(1)}

    def without_mask():
        bert = bert_jax.load(place.folder)
        FillMask(replace(bert, vocabulary=tiny.Tokenizer(tiny.kinds.without_mask("bpe"))))

    def other_task():
        settings = place.settings("classification", do="evaluate", train=None, epochs=3, batch_size=32)
        finetuning.finetune(settings.replace(learning_rate=3e-5, output=str(place.scratch / "none")))

    def electra(**changes):
        return lambda: BertConfig.from_dict({"model_type": "electra", **changes})

    def modern(**changes):
        return lambda: BertConfig.from_dict({"model_type": "modernbert", **changes})

    return {
        "next sentence without that head": lambda: predicts_next_sentences(place),
        "sentence pairs in pretraining": lambda: check_pretraining(pretraining_settings(place, objective="mlm-nsp")),
        "masks without a mask token": without_mask,
        "another family": partial(load, {"model_type": "gpt2"}),
        "the head of another task": other_task,
        "a decoder of its own": partial(load, {}, untie),
        "a decoder that is missing": partial(load, {"tie_word_embeddings": False}),
        "relative positions": partial(load, {"position_embedding_type": "relative_key"}),
        "a decoder model": partial(load, {"is_decoder": True}),
        "another summary of ELECTRA": electra(summary_type="mean"),
        "an activation that is unknown": partial(load, {"hidden_act": "mish"}),
        "a number that is a string": electra(hidden_size="768"),
        "scaled rotary positions": modern(rope_parameters={"full_attention": {"rope_type": "yarn"}}),
        "global layers at irregular distances": modern(layer_types=["full_attention"] * 2 + ["sliding_attention"]),
        "new words for another vocabulary": lambda: read_source(pretraining_settings(place, add_tokens=3)),
        "rows that are too long": lambda: check_pretraining(pretraining_settings(place, max_length=200)),
    }


def test_what_the_page_lists_is_refused_with_that_message(places, tmp_path):
    place = places("roberta")

    def edited(changes, edit):
        folder = shutil.copytree(place.folder, tmp_path / "edited", dirs_exist_ok=True)
        edit_config(folder, **changes)
        if edit is not None:
            edit_weights(folder, edit)
        return folder

    lines = PAGE.read_text(encoding="utf-8").split("## What is refused")[1].splitlines()
    listed = dict([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|"))
    listed = {what: message for what, message in listed.items() if what not in ("what", "---")}
    made = refusals(place, edited)
    assert [*listed] == [*made]
    for what, cause in made.items():
        with pytest.raises(ValueError, match=re.escape(listed[what])) as caught:
            cause()
        assert "\n" not in str(caught.value), what
