"""Cached decoding in bfloat16 says of its samples what the training forward says, compiled as users have it: tests
switch off optimizations, without which a CPU has no such products."""

import json

import numpy as np
import pytest

from tests import optimized

CODE = """
import dataclasses, json
import jax, jax.numpy as jnp, numpy as np
from rmjax.rl import packing
from rmjax.models import presets
from rmjax.models.policy import Policy
from rmjax.models.transformer import LanguageModel, Transformer
from rmjax.sampling import generate
from rmjax.sampling.filters import Settings
from rmjax.train import forward, state

B, P, K, C, TEMPERATURE = 4, 6, 3, 8, 0.7
rng, one = np.random.default_rng(0), jnp.ones((1, 1), jnp.int32)
config = dataclasses.replace(presets.decoder(40, 32, 2, 32), OPTIONS)
transformers = {d: Transformer(config, d) for d in ("bfloat16", "float32")}
policies = {d: Policy(t) for d, t in transformers.items()}
variables = jax.jit(policies["float32"].init)(jax.random.key(1), one, one - 1, one, one - 1)
move = lambda x: jnp.asarray(x + 0.1 * rng.normal(size=x.shape), jnp.float32)
variables = jax.tree.map(move, variables)

ids = [rng.integers(1, 40, n).astype(np.int32) for n in (6, 4, 2, 1)]
prompts = packing.Prompts(ids, np.arange(B), [""] * B, [""] * B)
rows = generate.padded(ids, P, 0)
keys = generate.sample_keys(jax.random.key(0), jnp.arange(B), K)
settings = Settings(C, TEMPERATURE, stop_tokens=(2,))
half = LanguageModel(transformers["bfloat16"])
made = generate.generate(half, variables, rows["tokens"], rows["lengths"], keys, settings)
made = jax.tree.map(np.asarray, made)

batch = packing.lay(packing.as_examples(made, prompts), B, packing.Bounds(B, 32, 16, K, 0, 1, 1, 1, 0))
where = packing.Places.of(batch, B * K, C)
sampled, told = made.log_probs.reshape(B * K, C)[where.mask], {}
for dtype, policy in policies.items():
    run = jax.jit(forward.language(policy.apply, temperature=TEMPERATURE), static_argnums=3)
    found = np.asarray(run(state.gather(variables), {}, batch, None)["log_probs"])
    told[dtype] = where.unpack(found)[where.mask].tolist()
print(json.dumps({"sampled": sampled.tolist(), **told}))
"""


# Where heads share keys the cache is bfloat16, else float32 (on CPU).
@pytest.mark.parametrize("options", ["", "kv_heads=1, gated=True, activation='silu'"])
def test_log_probs_of_bfloat16_samples_are_those_of_the_training_forward(options):
    code = CODE.replace("OPTIONS", f"**dict({options})")
    found = {name: np.array(x) for name, x in json.loads(optimized.run(code)).items()}
    assert len(found["sampled"]) > 60 and found["sampled"].std() > 0.2  # far from uniform
    np.testing.assert_allclose(found["sampled"], found["bfloat16"], atol=2e-2)
    assert np.any(np.abs(found["sampled"] - found["float32"]) > 1e-3)  # it was in bfloat16
