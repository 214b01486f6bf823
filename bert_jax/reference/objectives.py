"""The objectives: for each model, its head and its loss, from the last hidden state to a number, and their gradients.

`loss, outputs, cache = objective(params, x, batch, config)` takes x [B, T, D]; `dx, gradient = objective_backward(
cache)` starts from dLoss = 1. The loss is the mean, sum / weight, so the loss functions below receive dsum =
1 / weight. Parameters, batch keys and outputs have the names of the JAX models.
"""

import numpy as np

from bert_jax.reference.heads import (
    gather,
    gather_backward,
    masked_lm,
    masked_lm_backward,
    mean_pool,
    mean_pool_backward,
    pooler,
    pooler_backward,
    prediction_head,
    prediction_head_backward,
)
from bert_jax.reference.layers import dense, dense_backward
from bert_jax.reference.losses import (
    binary_cross_entropy,
    binary_cross_entropy_backward,
    cross_entropy,
    cross_entropy_backward,
    span_cross_entropy,
    span_cross_entropy_backward,
    squared_error,
    squared_error_backward,
    token_cross_entropy,
)


def masked_lm_objective(params, x, batch, config):
    """Predicts the masked tokens. Batch: masked_labels, masked_weights [B, P]; optionally masked_positions [B, P]."""
    word = params["embeddings"]["word"]["embedding"]
    # ModernBERT's transform and norm are in the part that its other heads have too.
    owners = {name: part for part in ("prediction_head", "masked_lm") for name in params.get(part, ())}
    head = {name: params[part][name] for name, part in owners.items()}
    options = {"hidden_act": config.masked_lm_act, "layer_norm_eps": config.layer_norm_eps}
    logits, head_cache = masked_lm(head, word, x, batch.get("masked_positions"), **options)
    (total, weight), loss_cache = cross_entropy(logits, batch["masked_labels"], batch["masked_weights"])
    return total / weight, {"prediction_logits": logits}, (owners, head_cache, loss_cache, weight)


def masked_lm_objective_backward(cache):
    """The word embeddings receive a gradient too, because the decoder is tied to them."""
    owners, head_cache, loss_cache, weight = cache
    dx, gradient, dword = masked_lm_backward(cross_entropy_backward(1 / weight, loss_cache), head_cache)
    by_part = {part: {} for part in owners.values()}
    for name, part in owners.items():
        by_part[part][name] = gradient[name]
    return dx, by_part | {"embeddings": {"word": {"embedding": dword}}}


def next_sentence_objective(params, x, batch, config):
    """Predicts whether B follows A. Batch: next_sentence_labels, next_sentence_weights, cls_positions [B, S].

    Without cls_positions the first token of each row is used, and labels and weights are [B].
    """
    pooled, pooler_cache = pooler(params["pooler"], x, batch.get("cls_positions"))
    logits, dense_cache = dense(params["next_sentence"], pooled)
    (total, weight), loss_cache = cross_entropy(logits, batch["next_sentence_labels"], batch["next_sentence_weights"])
    outputs = {"pooler_output": pooled, "seq_relationship_logits": logits}
    return total / weight, outputs, (pooler_cache, dense_cache, loss_cache, weight)


def next_sentence_objective_backward(cache):
    """The backward pass through loss, dense, pooler."""
    pooler_cache, dense_cache, loss_cache, weight = cache
    dpooled, gradient = dense_backward(cross_entropy_backward(1 / weight, loss_cache), dense_cache)
    dx, pooler_gradient = pooler_backward(dpooled, pooler_cache)
    return dx, {"next_sentence": gradient, "pooler": pooler_gradient}


CLASSIFICATION_LOSSES = {
    "single_label_classification": (cross_entropy, cross_entropy_backward),
    "multi_label_classification": (binary_cross_entropy, binary_cross_entropy_backward),
    "regression": (squared_error, squared_error_backward),
}


def pooled_sequence(params, x, batch, config):
    """Represents a sequence by one vector [B, D]: BERT's pooler, or what another family has before the classifier."""
    if config.family.is_modern:
        if config.classifier_pooling == "mean":
            mask = batch.get("attention_mask", np.ones(x.shape[:2]))
            vectors, pool_cache = mean_pool(x, mask.reshape(x.shape[:2]))
        else:
            vectors, pool_cache = gather(x, np.zeros(len(x), np.int64))
        backward = mean_pool_backward if config.classifier_pooling == "mean" else gather_backward
        y, head_cache = token_vectors(params, vectors, config)
        return y, (None, (backward, pool_cache, head_cache))
    part = next(part for part in ("pre_classifier", "summary", "pooler") if part in params)
    pooled, pooler_cache = pooler(params[part], x, act="tanh" if part == "pooler" else config.family.layer_act)
    return pooled, (part, pooler_cache)


def pooled_sequence_backward(dpooled, cache):
    """The backward pass; the gradient is under the name of the part."""
    part, pooler_cache = cache
    if part is None:
        backward, pool_cache, head_cache = pooler_cache
        dvectors, gradient = token_vectors_backward(dpooled, head_cache)
        return backward(dvectors, pool_cache), gradient
    dx, gradient = pooler_backward(dpooled, pooler_cache)
    return dx, {part: gradient}


def token_vectors(params, x, config):
    """Returns what a classifier reads at each token: x itself, or ModernBERT's prediction head of it."""
    if not config.family.is_modern:
        return x, None
    options = {"hidden_act": config.classifier_activation, "layer_norm_eps": config.layer_norm_eps}
    return prediction_head(params["prediction_head"], x, **options)


def token_vectors_backward(dy, cache):
    """The backward pass; without a prediction head there is no gradient but dx."""
    if cache is None:
        return dy, {}
    dx, gradient = prediction_head_backward(dy, cache)
    return dx, {"prediction_head": gradient}


def classification_objective(params, x, batch, config):
    """Classifies a sequence. Batch: labels in the form for config.problem_type, example_weights [B]."""
    pooled, pooler_cache = pooled_sequence(params, x, batch, config)
    logits, dense_cache = dense(params["classifier"], pooled)
    loss_function, loss_backward = CLASSIFICATION_LOSSES[config.problem_type]
    (total, weight), loss_cache = loss_function(logits, batch["labels"], batch["example_weights"])
    outputs = {"pooler_output": pooled, "logits": logits}
    return total / weight, outputs, (pooler_cache, dense_cache, loss_backward, loss_cache, weight)


def classification_objective_backward(cache):
    """The backward pass through loss, dense, pooler."""
    pooler_cache, dense_cache, loss_backward, loss_cache, weight = cache
    dpooled, gradient = dense_backward(loss_backward(1 / weight, loss_cache), dense_cache)
    dx, layer_gradient = pooled_sequence_backward(dpooled, pooler_cache)
    return dx, {"classifier": gradient} | layer_gradient


def multiple_choice_objective(params, x, batch, config):
    """Chooses among the C rows of each example. Batch: labels, example_weights [B]; x is [B * C, T, D]."""
    pooled, pooler_cache = pooled_sequence(params, x, batch, config)
    scores, dense_cache = dense(params["classifier"], pooled)
    logits = scores.reshape(len(batch["labels"]), -1)
    (total, weight), loss_cache = cross_entropy(logits, batch["labels"], batch["example_weights"])
    outputs = {"pooler_output": pooled, "logits": logits}
    return total / weight, outputs, (pooler_cache, dense_cache, loss_cache, weight)


def multiple_choice_objective_backward(cache):
    """The backward pass through loss, dense, pooler; the C scores of an example become C rows again."""
    pooler_cache, dense_cache, loss_cache, weight = cache
    dscores = cross_entropy_backward(1 / weight, loss_cache).reshape(-1, 1)
    dpooled, gradient = dense_backward(dscores, dense_cache)
    dx, layer_gradient = pooled_sequence_backward(dpooled, pooler_cache)
    return dx, {"classifier": gradient} | layer_gradient


def token_classification_objective(params, x, batch, config):
    """Classifies every token. Batch: labels [B, T], -100 for tokens without a label, example_weights [B]."""
    vectors, head_cache = token_vectors(params, x, config)
    logits, dense_cache = dense(params["classifier"], vectors)
    (total, weight), loss_cache = token_cross_entropy(logits, batch["labels"], batch["example_weights"])
    return total / weight, {"logits": logits}, (head_cache, dense_cache, loss_cache, weight)


def token_classification_objective_backward(cache):
    """The backward pass through loss, dense, prediction head."""
    head_cache, dense_cache, loss_cache, weight = cache
    dvectors, gradient = dense_backward(cross_entropy_backward(1 / weight, loss_cache), dense_cache)
    dx, head_gradient = token_vectors_backward(dvectors, head_cache)
    return dx, {"classifier": gradient} | head_gradient


def question_answering_objective(params, x, batch, config):
    """Predicts where the answer starts and ends. Batch: start_positions, end_positions, example_weights [B]."""
    vectors, head_cache = token_vectors(params, x, config)
    part = "classifier" if config.family.is_modern else "span"
    logits, dense_cache = dense(params[part], vectors)
    (total, weight), loss_cache = span_cross_entropy(
        logits, batch["start_positions"], batch["end_positions"], batch["example_weights"]
    )
    outputs = {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
    return total / weight, outputs, (part, head_cache, dense_cache, loss_cache, weight)


def question_answering_objective_backward(cache):
    """The backward pass through loss, dense, prediction head."""
    part, head_cache, dense_cache, loss_cache, weight = cache
    dvectors, gradient = dense_backward(span_cross_entropy_backward(1 / weight, loss_cache), dense_cache)
    dx, head_gradient = token_vectors_backward(dvectors, head_cache)
    return dx, {part: gradient} | head_gradient


OBJECTIVES = {
    "masked_lm": (masked_lm_objective, masked_lm_objective_backward),
    "next_sentence": (next_sentence_objective, next_sentence_objective_backward),
    "sequence_classification": (classification_objective, classification_objective_backward),
    "multiple_choice": (multiple_choice_objective, multiple_choice_objective_backward),
    "token_classification": (token_classification_objective, token_classification_objective_backward),
    "question_answering": (question_answering_objective, question_answering_objective_backward),
}
