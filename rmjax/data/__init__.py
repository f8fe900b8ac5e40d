"""From files to packed batches of token ids, on the host: nothing here imports jax."""
