"""An exported forward pass runs from its file alone, at any shape, and agrees with the model."""

import subprocess
import sys

import numpy as np
import pytest
import small_pipelines as small
from jax import export as jax_export

from bert_jax.config import BertConfig
from bert_jax.interop.loading import LoadedBert
from bert_jax.models import BertForMultipleChoice

TOLERANCE = 1e-5
HEADS = ("BertForPreTraining", "BertForQuestionAnswering")


def export(bert, folder, **options):
    path = folder / "bert.stablehlo"
    bert.export(path, **options)
    return path


@pytest.mark.parametrize("head", HEADS)
def test_an_exported_file_agrees_with_the_model_at_every_shape(head, tmp_path):
    bert = small.bert(head)
    exported = jax_export.deserialize(export(bert, tmp_path).read_bytes())
    for texts in ([small.SHORT], ["owl", small.SHORT, "is that so ?"]):
        inputs = bert.tokenizer(texts, ["an owl !"] * len(texts))
        want = bert(**inputs)
        got = exported.call(inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"])
        assert type(got) is dict
        assert got.keys() == want.keys()
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=TOLERANCE, atol=TOLERANCE)


def test_an_exported_file_runs_without_this_package(tmp_path):
    bert = small.bert("Bert")
    path = export(bert, tmp_path)
    program = f"""
import sys, numpy as np
from jax import export
rows = np.ones((3, 5), np.int32)
outputs = export.deserialize(open({str(path)!r}, "rb").read()).call(rows, rows, 0 * rows)
assert not [name for name in sys.modules if name.startswith(("bert_jax", "flax"))]
print(outputs["last_hidden_state"].shape)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "(3, 5, 12)\n", run.stderr


def test_an_exported_file_is_for_all_platforms_by_default(tmp_path):
    bert = small.bert("Bert", position_embedding_type="sinusoidal")
    assert jax_export.deserialize(export(bert, tmp_path).read_bytes()).platforms == ("cpu", "cuda", "tpu")
    path = export(bert, tmp_path, platforms=["cpu"])
    assert jax_export.deserialize(path.read_bytes()).platforms == ("cpu",)
    assert [file.name for file in tmp_path.iterdir()] == ["bert.stablehlo"]


def test_multiple_choice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="BertForMultipleChoice cannot be exported"):
        export(LoadedBert(BertForMultipleChoice(BertConfig(num_labels=1)), {}), tmp_path)
