"""From texts to answers in one line of Python.

>>> from bert_jax.pipelines import TextClassifier
>>> TextClassifier.load("MODEL")("a wonderful film .")  # doctest: +SKIP
{'label': 'positive', 'score': 0.998}

Every pipeline is loaded from what `bert_jax.load` takes. One text gives one result, a list gives a list in its order,
and a generator gives a generator. Results are plain dicts with the field names of Hugging Face's pipelines.
"""

from bert_jax.pipelines.embedder import Embedder
from bert_jax.pipelines.fill_mask import FillMask
from bert_jax.pipelines.multiple_choice import MultipleChoice
from bert_jax.pipelines.question_answerer import QuestionAnswerer
from bert_jax.pipelines.text_classifier import TextClassifier
from bert_jax.pipelines.token_classifier import TokenClassifier

__all__ = ["Embedder", "FillMask", "MultipleChoice", "QuestionAnswerer", "TextClassifier", "TokenClassifier"]
