"""The `critic` line of a config: the head that says what states are worth, and what it starts from."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from rmjax import lookup
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.inference.backbones import Backbone
from rmjax.models.critics import ActionValue, Value
from rmjax.models.policy import Policy
from rmjax.models.transformer import Config, LanguageModel
from rmjax.train import checkpoint
from rmjax.train.state import Params


class Start(NamedTuple):
    """A critic of its own transformer: the shape of that, and all parameters as a `Policy` has them."""

    shape: Config
    params: Params


class Critic(NamedTuple):
    """offers: what a rollout reads of it. head(policy's config, dtype) -> the module. workdir: of a reward model."""

    offers: tuple[str, ...] = ()
    head: Callable[[Config, str], Value | ActionValue] | None = None
    workdir: str = ""


def none() -> Critic:
    """Nothing but rewards says what a text is worth."""
    return Critic()


def value(*, workdir: str = "") -> Critic:
    """V(s), linear in the policy's hidden states and 0 at first.

    workdir: a finished run of experiments.train_reward over the policy's tokenizer, with model="trained(...)" or
      "tiny_decoder()". The critic is then a transformer of its own, trained whole beside the policy or its adapter, and
      its values start as the scores that the reward model gives a text that ends there.
    """
    return Critic(("values",), lambda shape, dtype: Value(), workdir)


def q() -> Critic:
    """Q(s, a) of every next token, linear in the policy's hidden states and 0 at first; V = sum_a p(a | s) Q(s, a)."""
    head = lambda shape, dtype: ActionValue(shape.vocab_size, dtype)
    return Critic(("values", "q"), head)


CRITICS = {f.__name__: f for f in (none, value, q)}


def plan(config: Any) -> Critic:
    """Binds the line.

    Raises: UserError naming the key, also where the `returns` line is for another kind of critic.
    """
    found = lookup.bind(config.critic, CRITICS, key="critic")()
    of_actions = lookup.name_of(config.returns, key="returns") == "expected_sarsa"
    if found.offers and of_actions != ("q" in found.offers):
        raise UserError(
            f"config key 'returns': critic={config.critic!r} does not learn from {config.returns!r}; critic='q()' goes "
            "with expected_sarsa(discount=1.0), critic='value()' with any other"
        )
    if config.bootstrap and (not found.offers or of_actions):
        raise UserError(
            f"config key 'bootstrap': what a cut text is worth is said by critic='value()', not {config.critic!r}; set "
            "that, or bootstrap=False"
        )
    if config.bootstrap and not lookup.off(config.environment, key="environment"):
        raise UserError(
            "config key 'bootstrap': an episode ends after its turns, whatever it is worth by then; set bootstrap=False"
        )
    return found


def start(critic: Critic, policy: Backbone) -> Start | None:
    """What a critic with a transformer of its own starts from; None where it has none.

    Raises: UserError where the reward model is none that a critic of this policy can start from.
    """
    if not critic.workdir:
        return None
    home = Path(critic.workdir)
    best = home / "checkpoints/best"
    about = {} if checkpoint.latest(best) is None else checkpoint.about(best)
    if why := _unfit(about, policy):
        raise UserError(f"config key 'critic': {critic.workdir} {why}")
    params = backbones.merged(home, about)
    # The score's level and scale are part of the model.
    level, scale = 0.0, 1.0
    if not lookup.off(about["config"]["normalize"], key="normalize"):
        fixed = json.loads((home / "checkpoints/normalization.json").read_text(encoding="utf-8"))
        level, scale = fixed["mean"][0], fixed["scale"][0]
    kernel, bias = params["head/score/kernel"][:, 0], params["head/score/bias"][0]
    trunk = {f"critic_{k}": x for k, x in params.items() if k.startswith("transformer/")}
    made = {**trunk, "critic/kernel": kernel / scale, "critic/bias": (bias - level) / scale}
    return Start(
        Config(**about["transformer"]), {k: jnp.asarray(x, jnp.float32) for k, x in made.items()}
    )


def _unfit(about: Mapping[str, Any], policy: Backbone) -> str:
    """Why the model that a checkpoint's description is of is no start for a critic of this policy; "" if it is."""
    if not about:
        return "holds no checkpoints/best; name the folder of a finished run"
    if "pooling" not in about:
        return "is a language model's run, not a reward model's"
    if about["tokenizer"] != policy.tokenizer.to_json():
        return (
            "has another tokenizer than the policy, so it cannot read the policy's tokens; train it with "
            "--config.model=\"trained(workdir='...')\" of the policy's run"
        )
    shape, pooling, own = Config(**about["transformer"]), about["pooling"], about["config"]
    if (shape.kind, pooling, policy.config.kind) != ("decoder", "last", "decoder"):
        return (
            f"is of kind {shape.kind} and pooling {pooling}; values are of decoders, pooling last"
        )
    if shape.max_positions < policy.config.max_positions:
        return f"has {shape.max_positions} positions, the policy {policy.config.max_positions}"
    if own["seeds"] > 1:
        return f"holds {own['seeds']} seeds; a critic starts from one"
    if not lookup.same(own["head"], "scalar()", key="head"):
        return f"has head={own['head']!r}; a critic starts from scalar()"
    return ""


def module(
    critic: Critic, found: Start | None, language: LanguageModel, dtype: str, *, remat: bool
) -> Policy:
    """The policy with its critic; a critic's own transformer has no dropout and no adapter."""
    own = None if found is None else backbones.transformer(found.shape, dtype, remat=remat)
    policy = language.transformer
    head = None if critic.head is None else critic.head(policy.config, dtype)
    return Policy(policy, critic=head, critic_transformer=own)
