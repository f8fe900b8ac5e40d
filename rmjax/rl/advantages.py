"""The lines of a config that turn rewards into what losses read: KL penalty, baseline, returns, weights.

Legend: N texts, K completions of each prompt, C tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rmjax import lookup
from rmjax.errors import UserError
from rmjax.rl import baselines, kl_penalty, returns, reward_shaping, weights
from rmjax.rl.estimators import RETURNS
from rmjax.rl.reward_shaping import Shaping


class Penalty(NamedTuple):
    """The KL penalty: `beta` reward units per nat of KL from the reference at first; fixed where `target` is 0."""

    beta: float
    target: float = 0.0
    horizon: int = 10_000

    def of(self, kl: float) -> float:
        """What a policy `kl` nats a text from the reference is penalized by where policies of one run are compared.

        One definition for the whole run, so that the best of its states is the best by one measure: `beta` a nat; of
        `adaptive`, whose coefficient moves to keep the KL at `target`, the first coefficient for each nat beyond that.
        """
        return self.beta * (max(kl - self.target, 0.0) if self.target else kl)


def no_penalty() -> Penalty:
    """There is no KL penalty."""
    return Penalty(0.0)


def fixed(*, beta: float = 0.05) -> Penalty:
    """The KL coefficient is `beta`, >= 0 (Stiennon et al. 2020).

    Raises: ValueError if it is negative.
    """
    if beta < 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    return Penalty(beta)


def adaptive(*, beta: float = 0.15, target: float = 6.0, horizon: int = 10_000) -> Penalty:
    """The KL coefficient moves so that KL stays near `target` nats a text (Ziegler et al. 2019).

    Raises: ValueError unless all are positive.
    """
    if not (beta > 0 and target > 0 and horizon > 0):
        raise ValueError(
            f"beta, target and horizon must be positive, got {beta}, {target}, {horizon}"
        )
    return Penalty(beta, target, horizon)


def moving_average(*, decay: float = 0.9) -> float:
    """The average of earlier rollouts' rewards is the baseline."""
    return decay


def equal_weights() -> None:
    """Every sample counts the same."""


KL = {"none": no_penalty, "fixed": fixed, "adaptive": adaptive}
GROUPED = {
    "none": baselines.no_baseline,
    "batch_mean": baselines.batch_mean,
    "leave_one_out": baselines.leave_one_out,
    "group_normalized": baselines.group_normalized,
    "group_centered": baselines.group_centered,
}
BASELINES = {**GROUPED, "moving_average": moving_average}
WEIGHTS = {
    "none": equal_weights,
    "exp_weights": weights.exp_weights,
    "boltzmann_weights": weights.boltzmann_weights,
    "raml_weights": weights.raml_weights,
    "keep_best": weights.keep_best,
    "keep_above": weights.keep_above,
}


class Credit(NamedTuple):
    """credit(known, mask, carry) -> (arrays [N] or [N, C] for the batch, carry, figures to log).

    again: whether credit of tokens is made anew by `tokens` before each further epoch over a rollout.
    """

    samples: int
    penalty: Penalty
    baseline: str
    compare: Callable[..., Any]  # of `baseline`
    returns: Callable[..., Any]
    bootstrap: bool
    whiten: bool
    weigh: Callable[..., Any] | None
    shape: Shaping
    again: bool

    @property
    def start(self) -> dict[str, Any]:
        """The carry before the first step, as JSON keeps it."""
        return {"beta": self.penalty.beta, "average": 0.0, "seen": 0.0, **self.shape.start}

    def __call__(
        self, known: Mapping[str, np.ndarray], mask: np.ndarray, carry: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, float]]:
        """Of one rollout. mask: [N, C], 1 on the tokens of each text.

        What is learned from (but by relaxed(), which asks the reward model itself) is "paid": the reward, shaped, less
        the KL penalty.

        known: reward [N], stopped [N]; of tokens [N, C] old_log_probs, reference_log_probs; with a critic values, and
        of actions q; sampled_log_probs, what was said when they were drawn. Of episodes also token_rewards, whose sums
        are the reward, and turn, which turn a token is of. sampled [N]: which texts are the policy's own, whose
        KL is logged and adapts the coefficient; all where it is left out.
        """
        old, beta = known["old_log_probs"], float(carry["beta"])
        reference = known["reference_log_probs"]
        kl = (self._nats(known) * mask).sum(1)
        own = known.get("sampled", np.ones(len(kl), bool))
        reward, carry = self.shape(known["reward"], mask.sum(1), known["stopped"], carry)
        paid = (reward - beta * kl).astype(np.float32)
        advantage = self._advantage(paid, carry)
        arrays = {
            "reward": reward,
            "paid": paid,
            "advantage": advantage,
            "advantages": _spread(advantage, mask),
            "old_log_probs": old,
            "reference_log_probs": reference,
            "standard_rewards": _spread(baselines.standardize(jnp.array(paid)), mask),
        }
        if "values" in known:
            arrays |= self.tokens({**known, "reward": reward}, mask, beta)
        elif "turn" in known:
            to_earn = np.asarray(self._paid(known, mask, beta))
            arrays["advantages"] = self._by_turn(to_earn, known["turn"], mask, carry)
        if self.weigh is not None:
            arrays["reward_weight"] = _spread(self._weights(paid, old.sum(1)), mask)
        k3 = np.asarray(kl_penalty.k3(jnp.array(old), jnp.array(reference)) * mask)
        told = {
            "rollout/kl": float(kl[own].mean()),
            "rollout/kl_k3": float(k3.sum(1)[own].mean()),
            "rollout/beta": beta,
            "rollout/reward_deviation": float(reward[own].std()),
        }
        if self.shape.steps:
            told["rollout/shaped_reward"] = float(reward[own].mean())
        return arrays, self._after(carry, paid[own], float(kl[own].mean())), told

    def of_texts(self, reward: np.ndarray) -> np.ndarray:
        """The weights of texts that were not sampled, all of them one group: [N]."""
        return self._replace(samples=len(reward))._weights(reward, np.zeros_like(reward))

    def advantage_of_texts(self, reward: np.ndarray) -> np.ndarray:
        """Rewards of texts that were not sampled, less the baseline, all of them one group: [N].

        Raises: UserError on a baseline of earlier rollouts.
        """
        if self.baseline == "moving_average":
            raise UserError(
                "config key 'baseline': moving_average() is of earlier rollouts, and samples=0 has none; set "
                "batch_mean(), or another"
            )
        return np.asarray(self.compare(jnp.array(reward[None])), np.float32)[0]

    def _advantage(self, paid: np.ndarray, carry: Mapping[str, Any]) -> np.ndarray:
        grouped = jnp.array(paid.reshape(-1, self.samples))
        if self.baseline == "moving_average":
            # Before the first rollout there is no average: its own mean, with batch_mean's small bias.
            level = carry["average"] if carry["seen"] else float(paid.mean())
            return np.asarray(baselines.moving_average(grouped, level)).ravel()
        return np.asarray(self.compare(grouped)).ravel()

    def tokens(
        self, known: Mapping[str, np.ndarray], mask: np.ndarray, beta: float
    ) -> dict[str, np.ndarray]:
        """Advantages and a critic's targets, of tokens [N, C].

        known: of `__call__`, the reward shaped; to bootstrap from also end_values [N], of the states behind the texts.
        log_probs: by the policy as it is now, where that is no longer the one of old_log_probs; what the critic says is
        then of now too.
        """
        offered = {name: jnp.array(known[name]) for name in ("values", "q") if name in known}
        offered["ends"] = jnp.zeros(len(mask))
        if self.bootstrap:
            offered["ends"] = jnp.array(np.where(known["stopped"], 0.0, known["end_values"]))
        offered["mask"] = jnp.array(mask)
        offered["rewards"] = self._paid(known, mask, beta)
        now = known.get("log_probs", known["old_log_probs"])
        offered["log_ratios"] = jnp.array(now - known["sampled_log_probs"])
        found = self.returns(**{name: offered[name] for name in lookup.arrays(self.returns)})
        gained = found.advantages
        made = baselines.whiten(gained, offered["mask"]) if self.whiten else gained
        told = {"advantages": made, "old_values": known["values"], **found.targets}
        return {name: np.asarray(x) for name, x in told.items()}

    def _paid(self, known: Mapping[str, np.ndarray], mask: np.ndarray, beta: float) -> Array:
        """The reward of each token [N, C], less the KL penalty.

        Where ends are bootstrapped a cut text has not earned its reward yet: the critic's word stands for it.
        """
        nats = jnp.array(self._nats(known))
        if "token_rewards" in known:
            return (jnp.array(known["token_rewards"]) - beta * nats) * mask
        earned = np.where(self.bootstrap & ~known["stopped"], 0.0, known["reward"])
        return returns.token_rewards(jnp.array(earned), nats, jnp.array(mask), beta=beta)

    def _nats(self, known: Mapping[str, np.ndarray]) -> np.ndarray:
        old, reference = (jnp.array(known[f"{who}_log_probs"]) for who in ("old", "reference"))
        return np.asarray(kl_penalty.k1(old, reference))

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
        new, penalty = dict(carry), self.penalty
        if penalty.target:
            new["beta"] = float(
                kl_penalty.adapt_beta(
                    carry["beta"],
                    kl,
                    episodes=len(paid),
                    target=penalty.target,
                    horizon=penalty.horizon,
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
    named = lambda key: lookup.name_of(config[key], key=key)
    weigh = None if named("weights") == lookup.NONE else bind("weights", WEIGHTS)
    if named("weights") == "raml_weights" and not config.samples:
        raise UserError(
            "config key 'weights': raml_weights() divides by the chance of sampling, and samples=0 samples nothing; "
            "set boltzmann_weights(temperature=...)"
        )
    if config.samples and named("baseline") in GROUPED:
        try:
            bind("baseline", GROUPED)(jnp.zeros((1, config.samples)))
        except ValueError as error:
            raise UserError(
                f"config keys 'samples', 'baseline': {config.baseline}: {error}; set samples to 2 or more, or baseline "
                "to 'none()' or 'moving_average()'"
            ) from error
    try:
        penalty = bind("kl", KL)()
        made = Credit(
            config.samples,
            penalty,
            named("baseline"),
            bind("baseline", BASELINES),
            bind("returns", RETURNS),
            config.bootstrap,
            config.whiten,
            weigh,
            reward_shaping.plan(config),
            again=named("returns") == "vtrace",
        )
        if config.samples:
            reward = np.linspace(0, 1, config.batch_size * config.samples, dtype=np.float32)
            one = np.ones((len(reward), 1), np.float32)
            names = ("old_log_probs", "reference_log_probs", "sampled_log_probs", "values", "q")
            known = {"reward": reward, "stopped": reward > 0, **dict.fromkeys(names, -one)}
            known["end_values"] = reward
            made(known, one, made.start)
    except ValueError as error:
        raise UserError(
            f"config keys 'samples', 'kl', 'baseline', 'returns', 'weights', 'reward_shaping': {error}"
        ) from error
    return made


def _spread(values: Any, mask: np.ndarray) -> np.ndarray:
    """A text's value on each of its tokens [N] -> [N, C]."""
    return np.asarray(values, np.float32)[:, None] * mask
