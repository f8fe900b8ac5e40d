"""Evolution strategies: parameters move as the members of a population around them fared; evosax does the work.

Legend: M members of the population, R rows, P texts in a row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key

from rmjax.mean import Mean
from rmjax.train.state import Params
from rmjax.train.step import Step, settled


class Evolution(NamedTuple):
    """A population around the parameters, and the update that it gives.

    members(params, generation) -> Params [M, ...], of (noise key, generation) alone; the second half is the first's
      mirror image.
    step(state, frozen, batch) -> (state, {name: Mean}), as of `make_step`; generation g is the state's step g.
    """

    members: Callable[[Params, Any], Params]
    step: Step


def open_es(
    population: int, params: Params, rule: optax.GradientTransformation, *, deviation: float = 0.02
) -> Any:
    """OpenAI's strategy: antithetic normal perturbations, weighed by centered ranks, as evosax has it.

    population: M, even. params: what is perturbed, of which names and shapes count. rule: of its gradients.
    deviation: of the perturbations, in the parameters' unit, > 0.

    Raises: ValueError on values outside their range.
    Source: Salimans et al. 2017 (arXiv:1703.03864), algorithm 1 with section 2.1.
    """
    from evosax.algorithms import Open_ES  # here, as importing it starts a device

    if population < 2 or population % 2:
        raise ValueError(
            f"a population is of mirrored pairs: an even number of members, not {population}"
        )
    if not deviation > 0:
        raise ValueError(f"deviation must be positive, got {deviation}")
    return Open_ES(
        population,
        params,
        use_antithetic_sampling=True,
        optimizer=_flat(rule, params),
        std_schedule=optax.constant_schedule(deviation),
    )  # its default shaping is by centered ranks


STRATEGIES = {f.__name__: f for f in (open_es,)}


def create(strategy: Any, noise: Key[Array, ""], *, axis: str | None = None) -> Evolution:
    """The population and step of an evosax strategy.

    strategy: as of `open_es`. noise: the key of all perturbations. axis: as of `make_step`.
    The step reads of a batch "advantage" and "text_weight" [R, P], and "record" [R, P], in which text k is by member
    k modulo M. A member's fitness is the mean advantage of its texts, so all must have answered the same prompts.
    Like any step it changes nothing at a fitness that is not finite, nor does any after it.
    """
    everywhere = (lambda x: jax.lax.psum(x, axis)) if axis else (lambda x: x)
    options, count = strategy.default_params, strategy.population_size

    def around(params, generation):
        key = jax.random.fold_in(noise, generation)
        return key, strategy.init(key, params, options)  # of the key it makes no use

    def members(params: Params, generation: Any) -> Params:
        key, first = around(params, generation)
        with jax.numpy_rank_promotion("allow"):  # evosax adds arrays of different ranks
            return strategy.ask(key, first, options)[0]

    def step(state, frozen, batch):
        del frozen
        own = batch["record"][..., None] % count == jnp.arange(count)[None, None]
        own = own * batch["text_weight"][..., None]
        paid = jnp.sum(own * batch["advantage"][..., None], axis=(0, 1))
        fitness = everywhere(paid) / everywhere(jnp.sum(own, axis=(0, 1)))

        key, first = around(state.params, state.step)
        first = first.replace(opt_state=state.opt_state)
        with jax.numpy_rank_promotion("allow"):
            population = strategy.ask(key, first, options)[0]
            after, _ = strategy.tell(key, population, -fitness, first, options)  # it minimizes
        moved = jnp.linalg.norm(after.mean - first.mean)
        new = state.replace(params=strategy.get_mean(after), opt_state=after.opt_state)
        told = {
            "fitness": jnp.mean(fitness),
            "fitness_deviation": jnp.std(fitness),
            "update_norm": moved,
        }
        good = jnp.isfinite(moved) & jnp.all(jnp.isfinite(fitness))
        return settled(state, new, good), {name: Mean.of(x) for name, x in told.items()}

    return Evolution(members, step)


def _flat(rule: optax.GradientTransformation, like: Params) -> optax.GradientTransformation:
    """The rule on parameters by path, as a rule on all of them in one vector; its state keeps the paths."""
    unravel: Callable[[Any], Any] = ravel_pytree(like)[1]

    def init(params: Any) -> Any:
        return rule.init(unravel(params))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        moved, state = rule.update(unravel(updates), state, unravel(params))
        return ravel_pytree(moved)[0], state

    return optax.GradientTransformation(init, update)
