"""The PRNG keys of samples: a sample's key depends on seed, step, prompt and number alone.

Legend: B prompts, K samples of each.
"""

import jax
import jax.numpy as jnp
import numpy as np


def key_rows(seed: int, step: int, numbers: np.ndarray, samples: int) -> np.ndarray:
    """Key data uint32 [B, K, 2] of each sample: of (seed, step, prompt, sample) alone."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 3), step)
    fold = jax.random.fold_in
    of_prompt = jax.vmap(fold, (None, 0))(key, jnp.asarray(numbers))
    keys = jax.vmap(jax.vmap(fold, (None, 0)), (0, None))(of_prompt, jnp.arange(samples))
    return np.asarray(jax.random.key_data(keys))
