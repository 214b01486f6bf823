"""The tasks that a BERT is fine-tuned on: what is learned of an example, and what an answer is worth."""

from bert_jax.tasks.base import Part, Task
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.evaluation import Evaluator, of_seed
from bert_jax.tasks.multiple_choice import MultipleChoice
from bert_jax.tasks.question_answering import QuestionAnswering
from bert_jax.tasks.tagging import Tagging

__all__ = ["Classification", "Evaluator", "MultipleChoice", "Part", "QuestionAnswering", "Tagging", "Task", "of_seed"]
