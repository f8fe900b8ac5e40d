"""From prompts to texts: what may be drawn, cached decoding, beam search, and where a text ends."""
