"""The tasks that BERT is fine-tuned on, one file each; `bert_jax.tasks.base` describes how to add one."""

from bert_jax.tasks.base import TaskData
from bert_jax.tasks.classification import ClassificationData
from bert_jax.tasks.multiple_choice import MultipleChoiceData
from bert_jax.tasks.question_answering import QuestionAnsweringData
from bert_jax.tasks.tagging import TaggingData

TASKS: dict[str, type[TaskData]] = {
    "classification": ClassificationData,
    "tokens": TaggingData,
    "squad": QuestionAnsweringData,
    "multiple-choice": MultipleChoiceData,
}

__all__ = ["TASKS", "TaskData"]
