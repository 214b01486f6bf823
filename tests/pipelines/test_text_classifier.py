"""A score is what the model's config says that its logits mean, in `classify` and in `predict`."""

import numpy as np
import pytest
import small_pipelines as small

from bert_jax.pipelines import TextClassifier
from bert_jax.tasks.classification import Classification

TOLERANCE = 1e-4  # batches of other shapes add in another order


@pytest.mark.parametrize("function", ["Identity", "Sigmoid", None])
def test_the_score_of_a_cross_encoder_is_its_own(function):
    bert = small.bert("BertForSequenceClassification", num_labels=1, activation_fn=function)
    pair = {"text": "an owl", "text_pair": small.SHORT}
    logit = float(np.asarray(bert(**bert.tokenizer(["an owl"], [small.SHORT])).logits)[0, 0])
    want = logit if function == "Identity" else 1 / (1 + np.exp(-logit))
    assert TextClassifier(bert)(pair) == {"label": "LABEL_0", "score": pytest.approx(want, abs=TOLERANCE)}
    predicted = Classification("regression", trained=bert.config).decode(None, {"logits": np.array([[logit]])})
    assert predicted[0, 0] == pytest.approx(want)
