"""The name table is one to one, and covers the alternative names that files use for the same tensors."""

import pytest
import small_bert as small
from gradient_checks import leaves

from bert_jax.config import BertConfig
from bert_jax.interop.names import NAMES, hf_name, is_stacked, leaf_shapes, locate_tensor
from bert_jax.models.parameters import PARAMETERS

# Adapters are merged into their kernels before a model is written; the others are parts of other families.
PARTS = PARAMETERS.keys() - {"adapters", "pre_classifier", "summary", "final_norm", "prediction_head"}

CONFIG = small.config(
    num_labels=small.C,
)


def names(**options):
    """Yields every leaf, and every layer of the stacked ones, with its name."""
    for path in leaf_shapes(CONFIG, PARTS):
        for layer in range(small.L) if is_stacked(path) else (None,):
            yield path, layer, hf_name(path, layer, **options)


@pytest.mark.parametrize("prefix", [True, False])
def test_every_parameter_name_maps_back_to_its_leaf(prefix):
    found = [(path, layer, locate_tensor(name)) for path, layer, name in names(prefix=prefix)]
    assert all((where.path, where.layer) == (path, layer) for path, layer, where in found)
    assert len({name for *_, name in names(prefix=prefix)}) == len(found)


def test_only_kernels_are_transposed_and_each_belongs_to_its_part():
    for path, _, name in names():
        where = locate_tensor(name)
        assert where.transposed == path.endswith("/kernel")
        assert where.part == path.split("/")[0]
        assert not where.repeats


def test_the_table_covers_the_parameters_and_nothing_else():
    assert leaf_shapes(CONFIG, PARTS) == {path: leaf.shape for path, leaf in leaves(small.draw(small.SHAPES))}
    assert set(NAMES["bert"].modules.values()) == {path.rpartition("/")[0] for path in leaf_shapes(CONFIG, PARTS)}


@pytest.mark.parametrize(
    ("other", "usual"),
    [
        ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("bert.embeddings.LayerNorm.beta", "bert.embeddings.LayerNorm.bias"),
        ("encoder.layer.1.output.LayerNorm.gamma", "bert.encoder.layer.1.output.LayerNorm.weight"),
        ("pooler.dense.weight", "bert.pooler.dense.weight"),
        ("cls.predictions.transform.LayerNorm.beta", "cls.predictions.transform.LayerNorm.bias"),
        ("bert.embeddings.LayerNorm.scale", "bert.embeddings.LayerNorm.weight"),
        ("bert.embeddings.word_embeddings.embedding", "bert.embeddings.word_embeddings.weight"),
    ],
)
def test_alternative_names_mean_the_same(other, usual):
    assert locate_tensor(other) == locate_tensor(usual)


def test_flax_kernels_are_not_transposed():
    name = "bert.encoder.layer.0.intermediate.dense"
    assert locate_tensor(f"{name}.kernel") == locate_tensor(f"{name}.weight")._replace(transposed=False)


def test_the_decoder_repeats_the_embedding_and_the_bias():
    assert locate_tensor("cls.predictions.decoder.weight") == (
        "embeddings/word/embedding",
        None,
        False,
        "masked_lm",
        True,
    )
    assert locate_tensor("cls.predictions.decoder.kernel") == (
        "embeddings/word/embedding",
        None,
        True,
        "masked_lm",
        True,
    )
    assert locate_tensor("cls.predictions.decoder.bias") == ("masked_lm/bias", None, False, "masked_lm", True)


@pytest.mark.parametrize("name", ["embeddings.position_ids", "bert.embeddings.position_ids"])
def test_buffers_have_no_location(name):
    assert locate_tensor(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "weight", "bert", "bert.embeddings.word_embeddings.bias", "bert.embeddings.word_embeddings.gamma",
     "bert.encoder.layer.x.output.dense.weight", "bert.encoder.layer.01.output.dense.weight", "embeddings.word.weight",
     "bert.encoder.layer.-1.output.dense.weight", "bert.encoder.layer.{}.output.dense.weight", "bert.classifier.weight",
     "bert.encoder.layer.0.attention.self.distance_embedding.weight", "cls.predictions.weight", "lm_head.weight",
     "bert.bert.pooler.dense.weight", "bert.cls.predictions.bias"],
)  # fmt: skip
def test_unknown_names_are_refused(name):
    with pytest.raises(KeyError):
        locate_tensor(name)


def test_sinusoidal_positions_have_no_table():
    shapes = leaf_shapes(BertConfig(position_embedding_type="sinusoidal"), ["embeddings"])
    assert "embeddings/word/embedding" in shapes
    assert "embeddings/position/embedding" not in shapes
