"""Averages that add up across tokens, parts, devices and batches."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A weighted sum and its weight; two of them add, and only `value` divides."""

    total: PyTree
    weight: PyTree

    @classmethod
    def of(cls, values: Array, weights: Array | None = None) -> Mean:
        """The float32 sum of `values` (any shape) weighted by `weights` (same shape, default 1).

        Entries of weight 0 do not count, whatever they hold (NaN included).
        """
        values = jnp.asarray(values, jnp.float32)
        weights = jnp.ones_like(values) if weights is None else jnp.asarray(weights, jnp.float32)
        return cls(jnp.sum(jnp.where(weights != 0, values * weights, 0.0)), jnp.sum(weights))

    def __add__(self, other: Mean) -> Mean:
        """The mean over both."""
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self):
        """Total over weight; NaN where nothing was counted."""
        return self.total / self.weight
