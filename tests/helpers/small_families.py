"""Small random models of every family and head, written by transformers, and rows for them."""

from typing import Any, NamedTuple

import numpy as np

from bert_jax.families import FAMILIES

B, T, C, V, L = 3, 7, 5, 31, 2
CHOICES = 2
PAD = 1  # for RoBERTa; rows have it as padding in every family
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
         "ForMultipleChoice")  # fmt: skip
SIZES = {"hidden_size": 16, "num_hidden_layers": L, "num_attention_heads": 2, "intermediate_size": 20}
OF_FAMILY = {
    "distilbert": {"dim": 16, "n_layers": L, "n_heads": 2, "hidden_dim": 20},
    "electra": SIZES | {"embedding_size": 10},
    "xlm-roberta": SIZES | {"type_vocab_size": 1},
    "modernbert": SIZES | {"num_hidden_layers": 5, "local_attention": 4},  # layers 0 and 3 are global
    "modernbert with biases": SIZES
    | dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
    | {"decoder_bias": False, "classifier_pooling": "mean", "local_attention": 4},
}


class Case(NamedTuple):
    """A family and the end of a class's name; `options` is a key of `OF_FAMILY`, if not the family."""

    family: str
    head: str
    options: str | None = None

    def __str__(self) -> str:
        return f"{self.options or self.family}-{self.head}"

    @property
    def architecture(self) -> str:
        """The name of the class of transformers."""
        return f"{FAMILIES[self.family].class_prefix}{self.head}"


FAMILY_NAMES = tuple(name for name in FAMILIES if name != "bert")
# CamemBERT has the code of RoBERTa and XLM-RoBERTa, here as in transformers: two heads are enough.
CASES = [Case(family, head) for family in FAMILY_NAMES for head in HEADS if family != "camembert" or head in HEADS[1:3]]
CASES += [Case("modernbert", head, "modernbert with biases") for head in HEADS[1:3]]


def write(case: Case, folder) -> Any:
    """Writes a random model in which every parameter matters, and returns the PyTorch module."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    labels = {"ForMultipleChoice": 1, "ForQuestionAnswering": 2}.get(case.head, C)
    sizes: dict[str, Any] = OF_FAMILY.get(case.options or case.family, SIZES)
    family = FAMILIES[case.family]
    config = getattr(transformers, f"{family.class_prefix}Config")(
        vocab_size=V, max_position_embeddings=13, pad_token_id=PAD, num_labels=labels, **sizes
    )
    model = getattr(transformers, case.architecture)(config).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, leaf in model.named_parameters():
            is_scale = leaf.ndim == 1 and name.endswith("weight")
            leaf.copy_(is_scale + 0.3 * torch.randn(leaf.shape))
    model.save_pretrained(folder)
    return model


def rows(case: Case) -> dict[str, np.ndarray]:
    """Rows of unequal lengths, padded; two segments where the family has them."""
    random = np.random.default_rng(5)
    shape = (B, CHOICES, T) if case.head == "ForMultipleChoice" else (B, T)
    mask = np.ones(shape, np.int64)
    mask[-1, ..., 4:] = 0
    ids = np.where(mask == 1, random.integers(PAD + 1, V, shape), PAD)
    batch = {"input_ids": ids, "attention_mask": mask}
    if FAMILIES[case.family].has_segments:
        batch["token_type_ids"] = random.integers(0, 2, shape) * mask
    return batch
