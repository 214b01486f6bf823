"""Entities of a model are the same for label names of any tag scheme."""

import pytest
import small_pipelines as small

from bert_jax.pipelines import TokenClassifier

SCHEMES = {
    "BIOES": ("O", "B-PER", "I-PER", "E-PER", "S-PER"),
    "BILOU": ("O", "B-PER", "I-PER", "L-PER", "U-PER"),
    "BMEWO, lower case suffixes": ("o", "PER_b", "PER_m", "PER_e", "PER_w"),
}


def test_entities_do_not_depend_on_the_scheme_of_the_labels():
    text = " ".join([small.SHORT, *small.LINES])
    found = {}
    for scheme, names in SCHEMES.items():
        tag = TokenClassifier(small.bert("BertForTokenClassification", num_labels=5, label_names=names), overlap=8)
        found[scheme] = tag(text)
    entities = found["BIOES"]
    assert len(entities) > 1
    assert {one["entity_group"] for one in entities} == {"PER"}
    assert all(others == entities for others in found.values())


def test_label_names_of_no_scheme_are_refused_by_name():
    bert = small.bert("BertForTokenClassification", num_labels=3, label_names=("B-PER", "I-PER", "X-LOC"))
    with pytest.raises(
        ValueError, match=r"label names of the model \(`id2label` in config.json\): tag 'X-LOC' fits no"
    ):
        TokenClassifier(bert)
