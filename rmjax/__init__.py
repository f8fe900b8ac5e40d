"""Train reward models in JAX, optimize language models against them, and know whether they are good."""
