"""From files to token ids: corpora, vocabularies, and the batches that training reads."""
