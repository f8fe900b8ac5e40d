"""The step in bfloat16, compiled as users have it: tests switch off optimizations, among them those that may fail."""

import numpy as np

from tests import optimized

CODE = """
import jax
from configs.reward import get_config
from rmjax.assembly import reward as assembly
from rmjax.assembly import training
c = get_config("tiny")
c.update({"model": "tiny_encoder(width=32, layers=1)", "data": "synthetic_ratings(count=60)", "batch_size": 8})
plan = assembly.plan(c)
for dtype in training.DTYPES:
    parts = assembly.assemble(c, plan, plan.records(), dtype)
    state, means = parts.step(parts.state, parts.frozen, parts.layout.put_batch(parts.batches[0][0]))
    print(float(means["loss"].value), float(means["grad_norm"].value))
"""


def test_a_fully_optimized_step_agrees_with_float32():
    full, half = (np.array(line.split(), float) for line in optimized.run(CODE).splitlines())
    np.testing.assert_allclose(half, full, rtol=2e-2)
    assert np.any(half != full)
