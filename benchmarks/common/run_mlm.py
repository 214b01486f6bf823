"""Continued pretraining with transformers, as its official example `run_mlm.py` does it.

Each paragraph becomes `[CLS] ... [SEP]`; all of them are concatenated and cut into blocks, which have no padding but
begin and end anywhere. The masks are drawn again each time that a block is read.
"""

from collections.abc import Sequence
from itertools import chain

import transformers

from common.trainer import TrainerTask


def masked_words(source: str, paragraphs: Sequence[str], *, max_length: int, masked_share: float) -> TrainerTask:
    """Returns the task of predicting masked words; it has no held-out data.

    Args:
        source: a model in Hugging Face's layout.
        max_length: tokens of a block.
    """
    transformers.utils.logging.set_verbosity_error()  # a paragraph may be longer than a row of the model
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    encoded = tokenizer(list(paragraphs), return_special_tokens_mask=True)
    columns = {name: list(chain.from_iterable(encoded[name])) for name in encoded}
    whole = len(columns["input_ids"]) // max_length * max_length
    blocks = [
        {name: values[start : start + max_length] for name, values in columns.items()}
        for start in range(0, whole, max_length)
    ]
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=masked_share)
    return TrainerTask(transformers.AutoModelForMaskedLM, {}, blocks, [], collator, score=lambda logits: 0.0)
