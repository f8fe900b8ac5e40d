"""The train step, written once: exact under jit, pmap, a mesh, micro-batches and stacked seeds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from rmjax.mean import Mean
from rmjax.train.forward import dropout_key
from rmjax.train.objective import Batch, Objective
from rmjax.train.state import State

Step = Callable[[State, PyTree, Batch], tuple[State, dict[str, Mean]]]


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    axis: str | None = None,
    microbatches: int = 1,
) -> Step:
    """Returns step(state, frozen, batch) -> (state, {name: Mean}), pure and not yet compiled.

    axis: name of the mapped device axis under pmap; None under jit, where arrays are global.
    microbatches: parts that the rows are split into, one after the other, to save memory.
    The update is that of the global batch however it was split: weights are summed everywhere before any
    gradient is taken. A step with a non-finite loss or gradient changes no parameter, nor does any after it.
    """
    everywhere = (lambda x: jax.lax.psum(x, axis)) if axis else (lambda x: x)

    def step(state: State, frozen: PyTree, batch: Batch):
        weights = everywhere(objective.weights(batch))
        rng = dropout_key(state.rng, state.step)

        def loss(params, part):
            totals, means = objective.sums(params, frozen, part, rng)
            # A batch may hold nothing for a term (no pair with unequal ratings): it counts 0.
            share = lambda name: totals[name] / jnp.where(weights[name] > 0, weights[name], 1.0)
            return sum((coef * share(name) for name, coef in objective.coefs.items()), 0.0), means

        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        if microbatches == 1:
            (total, means), grads = everywhere(value_and_grad(state.params, batch))
        else:
            (total, means), grads = everywhere(
                _accumulate(value_and_grad, state.params, batch, microbatches)
            )

        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)
        means |= {"loss": Mean.of(total), "grad_norm": Mean.of(norm)}
        return settled(state, new, jnp.isfinite(norm) & jnp.isfinite(total)), means

    return step


def settled(state: State, new: State, good: Array) -> State:
    """The state after a step: parameters of `new` where the step was good and none before it was bad, else of `state`.

    What the optimizer remembers is not chosen so, for nobody reads it behind a bad step: XLA on CPU would copy all of
    it to choose from, at twice the parameters' memory and more time than the update itself takes.
    """
    good = good & (state.bad_step < 0)
    params = jax.tree.map(lambda a, b: jnp.where(good, a, b), new.params, state.params)
    bad_step = jnp.where(good | (state.bad_step >= 0), state.bad_step, state.step)
    return new.replace(params=params, step=state.step + 1, bad_step=bad_step)


def _accumulate(function: Callable, params: PyTree, batch: Batch, microbatches: int) -> PyTree:
    """The sum of function(params, part) over interleaved parts, so that each device has rows in each."""
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(function, params, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    add = lambda total, part: (jax.tree.map(jnp.add, total, function(params, part)), None)
    return jax.lax.scan(add, zeros, parts)[0]
