"""A model out of a run folder, a Hugging Face folder or a GGUF file, as a scorer, completer or embedder."""
