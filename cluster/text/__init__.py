"""Text: tokenizer, chat template, detokenizer, stop strings. Knows nothing of models or devices."""
