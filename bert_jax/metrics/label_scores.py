"""The scores of labels: what a classifier's logits mean, by its config; `classify` and `predict` share it.

References: Reimers, Gurevych, Sentence-BERT, 2019 (cross-encoders, which have an activation function of their own).
"""

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.metrics.classification import sigmoid, softmax


def label_scores(logits: np.ndarray, config: BertConfig) -> np.ndarray:
    """Returns the scores of logits [..., C], float64.

    For regression they are the logits. A model with one label has the activation function of its config, as
    cross-encoders have one, otherwise a sigmoid. Several labels have a sigmoid each or, by default, a softmax.
    """
    if config.num_labels == 1 and config.activation_fn is not None:
        return sigmoid(logits) if config.activation_fn == "Sigmoid" else np.asarray(logits, np.float64)
    if config.problem_type == "regression":
        return np.asarray(logits, np.float64)
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return sigmoid(logits)
    return softmax(logits)
