"""Practice data in Indonesian and English, generated: a corpus, tagged names and questions about short stories."""

from bert_jax.data.practice.stories import practice_documents, practice_names, practice_questions

__all__ = ["practice_documents", "practice_names", "practice_questions"]
