"""The lines of a config that turn rewards into what losses read: price of divergence, baseline, returns, weights.

Legend: N texts, K completions of each prompt, C tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rmjax import lookup
from rmjax.credit import baselines, divergence, returns, weights
from rmjax.errors import UserError


class Price(NamedTuple):
    """Of a nat of divergence from the reference, in reward units: `beta` at first; fixed where `target` is 0."""

    beta: float
    target: float = 0.0
    horizon: int = 10_000


def free() -> Price:
    """Divergence costs nothing."""
    return Price(0.0)


def fixed(*, beta: float = 0.05) -> Price:
    """Every nat costs `beta`, >= 0 (Stiennon et al. 2020).

    Raises: ValueError if it is negative.
    """
    if beta < 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    return Price(beta)


def adaptive(*, beta: float = 0.15, target: float = 6.0, horizon: int = 10_000) -> Price:
    """The price follows the divergence to `target` nats a text (Ziegler et al. 2019).

    Raises: ValueError unless all are positive.
    """
    if not (beta > 0 and target > 0 and horizon > 0):
        raise ValueError(
            f"beta, target and horizon must be positive, got {beta}, {target}, {horizon}"
        )
    return Price(beta, target, horizon)


def moving_average(*, decay: float = 0.9) -> float:
    """The average of earlier rollouts' rewards is the baseline."""
    return decay


def evenly() -> None:
    """Every sample counts the same."""


KL = {f.__name__: f for f in (free, fixed, adaptive)}
GROUPED = {
    f.__name__: f
    for f in (
        baselines.no_baseline,
        baselines.batch_mean,
        baselines.leave_one_out,
        baselines.group_normalized,
        baselines.group_centered,
    )
}
BASELINES = {**GROUPED, "moving_average": moving_average}
RETURNS = {f.__name__: f for f in (returns.gae,)}
WEIGHTS = {
    f.__name__: f
    for f in (
        evenly,
        weights.exp_weights,
        weights.boltzmann_weights,
        weights.keep_best,
        weights.keep_above,
    )
}


class Credit(NamedTuple):
    """credit(known, mask, carry) -> (arrays [N] or [N, C] for the batch, carry, figures to log)."""

    samples: int
    price: Price
    baseline: str
    compare: Callable[..., Any]  # of `baseline`
    returns: Callable[..., Any]
    whiten: bool
    weigh: Callable[..., Any] | None

    @property
    def start(self) -> dict[str, float]:
        """The carry before the first step."""
        return {"beta": self.price.beta, "average": 0.0, "seen": 0.0}

    def __call__(
        self, known: Mapping[str, np.ndarray], mask: np.ndarray, carry: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, float]]:
        """known: reward [N]; old_log_probs, reference_log_probs and with a critic values [N, C]. mask: [N, C].

        Of episodes also token_rewards [N, C], whose sums are the reward, and turn [N, C], which turn a token is of.
        """
        old, beta = known["old_log_probs"], float(carry["beta"])
        reference = known["reference_log_probs"]
        k1 = divergence.k1(jnp.array(old), jnp.array(reference)) * mask
        kl = np.asarray(jnp.sum(k1, axis=1))
        reward = np.asarray(known["reward"], np.float32)
        paid = (reward - beta * kl).astype(np.float32)
        advantage = self._advantage(paid, carry)
        arrays = {
            "reward": reward,
            "advantage": advantage,
            "old_log_probs": old,
            "reference_log_probs": reference,
            "standard_rewards": _spread(baselines.standardize(jnp.array(reward)), mask),
            **self._tokens(known, advantage, np.asarray(k1), mask, carry),
        }
        if self.weigh is not None:
            arrays["reward_weight"] = _spread(self._weights(reward, old.sum(1)), mask)
        k3 = np.asarray(divergence.k3(jnp.array(old), jnp.array(reference)) * mask)
        told = {
            "rollout/kl": float(kl.mean()),
            "rollout/kl_k3": float(k3.sum(1).mean()),
            "rollout/beta": beta,
            "rollout/reward_deviation": float(reward.std()),
        }
        return arrays, self._after(carry, paid, float(kl.mean())), told

    def of_texts(self, reward: np.ndarray) -> np.ndarray:
        """The weights of texts that were not sampled, all of them one group: [N]."""
        return self._replace(samples=len(reward))._weights(reward, np.zeros_like(reward))

    def _advantage(self, paid: np.ndarray, carry: Mapping[str, Any]) -> np.ndarray:
        grouped = jnp.array(paid.reshape(-1, self.samples))
        if self.baseline == "moving_average":
            # Before the first rollout there is no average: its own mean, with batch_mean's small bias.
            level = carry["average"] if carry["seen"] else float(paid.mean())
            return np.asarray(baselines.moving_average(grouped, level)).ravel()
        return np.asarray(self.compare(grouped)).ravel()

    def _tokens(self, known, advantage, k1, mask, carry) -> dict[str, np.ndarray]:
        """Advantages and, with a critic, returns and its values, of tokens [N, C]."""
        if not {"values", "turn"} & {*known}:
            return {"advantages": _spread(advantage, mask)}
        paid = _paid(known, k1, mask, float(carry["beta"]))
        if "values" not in known:
            return {"advantages": self._by_turn(np.asarray(paid), known["turn"], mask, carry)}
        values = jnp.array(known["values"])
        gained = self.returns(paid, values, jnp.array(mask))
        made = baselines.whiten(gained, jnp.array(mask)) if self.whiten else gained
        return {
            "advantages": np.asarray(made),
            "returns": np.asarray(gained + values * mask),
            "old_values": known["values"],
        }

    def _by_turn(self, paid, turn, mask, carry) -> np.ndarray:
        """What an episode earns from a turn on, against the others of its group from that turn on: of tokens [N, C].

        An episode that is over by then earns nothing from it on.
        """
        made = np.zeros_like(paid)
        for now in range(int(turn.max()) + 1):
            to_go = np.sum(paid * (turn >= now), axis=1)
            made += _spread(self._advantage(to_go, carry), mask * (turn == now))
        return made

    def _weights(self, reward: np.ndarray, log_prob: np.ndarray) -> np.ndarray:
        assert self.weigh is not None
        grouped = lambda x: jnp.array(x.reshape(-1, self.samples))
        offered = {
            "rewards": grouped(reward),
            "mask": jnp.ones((len(reward) // self.samples, self.samples), bool),
            "sampling_log_probs": grouped(log_prob),
        }
        read = {n: offered[n] for n in lookup.arrays(self.weigh)}
        return np.asarray(self.weigh(**read)).ravel()

    def _after(self, carry: Mapping[str, Any], paid: np.ndarray, kl: float) -> dict[str, Any]:
        new, price = dict(carry), self.price
        if price.target:
            new["beta"] = float(
                divergence.adapt_beta(
                    carry["beta"],
                    kl,
                    episodes=len(paid),
                    target=price.target,
                    horizon=price.horizon,
                )
            )
        if self.baseline == "moving_average":
            decay = self.compare()
            level = carry["average"] if carry["seen"] else float(paid.mean())
            new["average"] = float(baselines.update_average(level, jnp.array(paid), decay=decay))
        new["seen"] = carry["seen"] + len(paid)
        return new


def plan(config: Any) -> Credit:
    """Binds the lines, and calls each once on as many texts as a rollout has.

    Raises: UserError naming the key.
    """
    bind = lambda key, table: lookup.bind(config[key], table, key=key)
    named = lambda key: config[key].split("(")[0].strip()
    weigh = None if named("weights") == "evenly" else bind("weights", WEIGHTS)
    try:
        price = bind("kl", KL)()
        made = Credit(
            config.samples,
            price,
            named("baseline"),
            bind("baseline", BASELINES),
            bind("returns", RETURNS),
            config.whiten,
            weigh,
        )
        if config.samples:
            reward = np.linspace(0, 1, config.batch_size * config.samples, dtype=np.float32)
            one = np.ones((len(reward), 1), np.float32)
            tokens = dict.fromkeys(("old_log_probs", "reference_log_probs", "values"), -one)
            known = {"reward": reward, **tokens}
            made(known, one, made.start)
    except ValueError as error:
        raise UserError(
            f"config keys 'samples', 'kl', 'baseline', 'returns', 'weights': {error}"
        ) from error
    return made


def _paid(known: Mapping[str, np.ndarray], k1: np.ndarray, mask: np.ndarray, beta: float):
    """The reward of each token [N, C], less the price of its divergence."""
    if "token_rewards" in known:
        return jnp.array((known["token_rewards"] - beta * k1) * mask)
    reward = jnp.array(known["reward"], jnp.float32)
    return returns.token_rewards(reward, jnp.array(k1), jnp.array(mask), beta=beta)


def _spread(values: Any, mask: np.ndarray) -> np.ndarray:
    """A text's value on each of its tokens [N] -> [N, C]."""
    return np.asarray(values, np.float32)[:, None] * mask
