"""Stores a folder that the Flax classes wrote, and their outputs: python tests/expectations/make_flax.py

Needs transformers 4.57.6, the last that has them, with JAX and Flax: an environment of its own.
"""

from pathlib import Path

HERE = Path(__file__).parent / "flax"

if __name__ == "__main__":
    import jax
    import numpy as np
    from transformers import BertConfig, FlaxBertForPreTraining

    config = BertConfig(
        vocab_size=13,
        hidden_size=6,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=10,
        max_position_embeddings=7,
    )
    bert = FlaxBertForPreTraining(config, seed=5)
    random = np.random.default_rng(3)
    leaves, tree = jax.tree.flatten(bert.params)  # as initialized, all biases are 0 and all scales 1
    bert.params = tree.unflatten([random.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])
    bert.save_pretrained(HERE)
    rows = {
        "input_ids": np.array([[2, 5, 7, 11, 3], [12, 1, 4, 0, 0]]),
        "token_type_ids": np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]),
        "attention_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    answer = bert(**rows)
    np.savez_compressed(
        HERE / "answer.npz",
        prediction_logits=np.asarray(answer.prediction_logits),
        seq_relationship_logits=np.asarray(answer.seq_relationship_logits),
        **rows,
    )
