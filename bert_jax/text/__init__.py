"""Text on its way to token ids: tokenizer, vocabulary, sentences, windows."""
