"""A policy config to everything a run needs, checked in the order of what is cheap to check."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmjax import lookup
from rmjax.assembly import objective, strategies, training
from rmjax.assembly.data import DATA
from rmjax.data import language, pipeline
from rmjax.data.examples import Examples
from rmjax.data.language import Reads
from rmjax.data.records import Data
from rmjax.data.tokenizer import Tokenizer
from rmjax.environments.protocol import Environment
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.inference.backbones import Backbone
from rmjax.models import attention, presets, shardings
from rmjax.models.policy import Policy
from rmjax.models.transformer import LanguageModel
from rmjax.rl import advantages, candidates, critic, episodes, off_policy, relaxed, rollout
from rmjax.rl.advantages import Credit
from rmjax.rl.critic import Critic
from rmjax.rl.parts import Parts
from rmjax.train import evolution, forward, step
from rmjax.train.objective import Objective
from rmjax.train.state import Params


def gpt(
    texts: Sequence[str],
    *,
    vocabulary: int = 4096,
    width: int = 256,
    layers: int = 4,
    max_positions: int = 512,
) -> Backbone:
    """A GPT-2-shaped decoder from scratch, over a byte-level BPE vocabulary learned from the training texts."""
    try:
        tokenizer = Tokenizer.bpe(texts, vocabulary)
        config = presets.decoder(tokenizer.vocab_size, width, layers, max_positions)
    except ValueError as error:
        raise UserError(f"config key 'policy': gpt(): {error}") from error
    return Backbone(config, {}, tokenizer, "last", stop="</s>")


def pretrained(*, source: str) -> Backbone:
    """A pretrained language model, causal or T5: "smollm2", a Hugging Face folder, hf://ORG/NAME or a .gguf file."""
    return backbones.stored(source, key="policy")


def trained(*, workdir: str) -> Backbone:
    """The language model that an earlier run of experiments.optimize_policy trained, from its folder."""
    return backbones.finished(workdir, key="policy")


POLICIES = {
    f.__name__: f
    for f in (gpt, pretrained, trained, backbones.tiny_decoder, backbones.tiny_encoder_decoder)
}


def none() -> int:
    """Prompts are those of the data."""
    return 0


def opening(*, words: int = 4) -> int:
    """Prompts are the opening words of texts that have none; what follows them is the answer.

    Raises: ValueError if words < 1.
    """
    if words < 1:
        raise ValueError(f"words must be at least 1, got {words}")
    return words


PROMPTS = {f.__name__: f for f in (none, opening)}


class Plan(NamedTuple):
    """What the config's lines name, bound and checked before anything is loaded."""

    terms: list[lookup.Term]
    records: Callable[[], Data]
    words: int  # that open a text and are its prompt; 0: prompts are given
    policy: Callable[..., Backbone]
    training: training.Training
    credit: Credit
    critic: Critic
    evolution: Callable[..., Any] | None  # a strategy, which then stands in for the terms
    environment: Environment | None  # in place of data and reward

    @property
    def reads(self) -> set[str]:
        """All arrays that the terms can read."""
        return {name for term in self.terms for name in lookup.arrays(term.function)}

    @property
    def relaxed(self) -> bool:
        """Whether a term differentiates a reward model."""
        return "relaxed_reward" in self.reads

    @property
    def paired(self) -> bool:
        """Whether all answers of a record are learned from, not the best alone."""
        return any(name.startswith(("chosen", "desirable")) for name in self.reads)


def plan(config: Any) -> Plan:
    """Binds every spec string.

    Raises: UserError naming the key.
    """
    keys = (
        "batch_size",
        "max_prompt",
        "max_new_tokens",
        "rollout_epochs",
        "minibatches",
        "microbatches",
        "validation_prompts",
        "test_prompts",
        "log_every",
        "save_every",
    )
    trained = training.plan(config, keys)
    if config.samples < 0:
        raise UserError(f"config key 'samples': must not be negative, got {config.samples}")
    unrewarded = all(lookup.off(config[key], key=key) for key in ("reward", "environment"))
    if config.samples and unrewarded:
        raise UserError(
            "config key 'reward': samples are learned from by their reward; name one, or set samples=0"
        )
    of_rollouts = {"rollout_parts": 1, "rollout_epochs": 1, "minibatches": 1, "critic": "none()"}
    of_rollouts |= {"bootstrap": False, "data_answer": False}
    for key, unused in of_rollouts.items():
        if not config.samples and training.differs(config, key, unused):
            raise UserError(
                f"config key '{key}': is of rollouts, and samples=0 makes none; set samples to 1 or more, or "
                f"{key}={unused!r}"
            )
    try:
        words = lookup.bind(config.prompts, PROMPTS, key="prompts")()
    except ValueError as error:
        raise UserError(f"config key 'prompts': {error}") from error
    strategy = strategies.plan(config, trained)
    terms = objective.terms(config.loss, ()) if strategy is None else []
    ratio = [
        t.name for t in terms if {"old_log_probs", "advantages"} <= {*lookup.arrays(t.function)}
    ]
    if ratio and lookup.name_of(config.returns, key="returns") == "vtrace":
        raise UserError(
            f"config key 'returns': advantages of vtrace() hold the ratio that {ratio[0]}() has of its own; use "
            "loss='policy_gradient() + 0.5 * squared_value()', or returns='gae()'"
        )
    learns = strategy is not None or any(
        "data_weight" not in lookup.arrays(t.function) for t in terms
    )
    if config.samples and not learns:
        raise UserError(
            f"config key 'samples': no term of loss={config.loss!r} learns from samples; set samples=0"
        )
    candidates.check(config, {name for t in terms for name in lookup.arrays(t.function)})
    relaxed.check(config, {name for t in terms for name in lookup.arrays(t.function)})
    environment = episodes.plan(config, words, terms)
    if environment is None:
        records = lookup.bind(config.data, DATA, key="data")
    else:
        records = functools.partial(episodes.data, environment, config)
    return Plan(
        terms,
        records,
        words,
        lookup.bind(config.policy, POLICIES, key="policy"),
        trained,
        advantages.plan(config),
        critic.plan(config),
        strategy,
        environment,
    )


def prompted(chosen: Plan, loaded: Data) -> Data:
    """The data with prompts as the config has them."""
    if not chosen.words:
        return loaded
    open_all = lambda records: list(language.opened(records, chosen.words))
    return loaded._replace(
        train=open_all(loaded.train),
        validation=open_all(loaded.validation),
        test=open_all(loaded.test),
    )


def backbone(config: Any, chosen: Plan, loaded: Data, date: str = "") -> tuple[Backbone, Reads]:
    """The policy's transformer and how it reads. date: that a chat template with a date renders; "": today.

    Raises: UserError where it is no language model or has no stop token.
    """
    texts = lambda: [
        text
        for r in loaded.train
        for text in (language.said(r.prompt), *language.answers(r, compare=False))
    ]
    try:
        wanted = "texts" in lookup.arrays(chosen.policy)
        found = (chosen.policy(texts()) if wanted else chosen.policy()).dated(date)
    except ValueError as error:
        raise UserError(f"config key 'policy': {error}") from error
    if found.config.kind == "encoder":
        raise UserError(
            f"config key 'policy': {config.policy} is an encoder; a policy is a causal decoder, or has one behind its "
            "encoder"
        )
    if chosen.environment is not None and backbones.encodes(found.config):
        raise UserError(
            f"config key 'policy': {config.policy} reads prompts by an encoder, which an environment's further "
            "observations do not reach; set a causal decoder"
        )
    # Answers share their prompt, read by either stack: no token of it sees them.
    reader = backbones.reader(found, config.max_length, config.special_tokens, share=True)
    if chosen.words:
        reader = reader._replace(template=None)
    return found, backbones.reads(found, reader, f"config key 'policy': {config.policy}")


def assemble(
    config: Any,
    chosen: Plan,
    loaded: Data,
    found: Backbone,
    reads: Reads,
    dtype: str,
    rewards: np.ndarray | None = None,
    frozen_reward: relaxed.FrozenReward | None = None,
) -> Parts:
    """Builds batches of the data, the module, optimizer, step and the placed first state.

    loaded: of `prompted`. found, reads: of `backbone`. dtype: of products.
    rewards: of each training text, where texts of the data are learned from by reward.
    frozen_reward: what relaxed() asks.
    Raises: UserError where lines of the config do not fit each other or the data.
    """
    c, adapter = config, chosen.training.adapter
    layout = chosen.training.layout(shardings.spec, 1)
    most = backbones.longest(found.config, c.max_length)
    if not all(lookup.off(c[key], key=key) for key in ("reward", "environment")):
        _check_answers(c, found.config, layout.ways)
    texts, notes = language.encode(loaded.train, reads, most, compare=chosen.paired)
    if rewards is not None:
        texts = off_policy.rewarded(texts, rewards, chosen.credit, chosen.reads, most)
    batches = _batches(c, texts, reads, layout.ways)
    transformer = backbones.transformer(
        found.config, dtype, dropout=c.dropout, remat=c.remat, adapter=adapter
    )
    sampler = LanguageModel(transformer)
    own = critic.start(chosen.critic, found)
    module = critic.module(chosen.critic, own, sampler, dtype, remat=c.remat)
    key = jax.random.key(c.seed)
    params = backbones.initialize(module, found.weights, training.stream(key, "init"))
    params |= {} if own is None else own.params
    # Copies: what the state trains is donated to every step.
    reference = layout.put({k: jnp.copy(x) for k, x in params.items()}, stacked=False)
    sampling, first, members = None, batches[0], None
    if c.samples:
        sampling, more = rollout.plan(
            c, loaded.train, reads, batches, mixed="data_weight" in chosen.reads, ways=layout.ways
        )
        notes = [*notes, *more]
        first = rollout.blank(sampling, chosen.credit, chosen.critic.offers)
    else:
        first = _compared(first, chosen.reads)
    updates = sampling.updates if sampling else len(batches)
    update = training.update(c, chosen.training, updates)
    held = training.held(c.frozen, adapter, params)
    states, frozen = training.states([params], held, update, [key])
    asked = (
        {}
        if frozen_reward is None
        else {forward.ASKED + k: x for k, x in frozen_reward.params.items()}
    )
    if chosen.evolution is None:
        goal = _goal(c, chosen.terms, module, params, first, frozen_reward)
        made = step.make_step(goal, update, axis=layout.axis, microbatches=c.microbatches)
    else:
        strategy = chosen.evolution(c.samples, states[0].params, update)
        members, made = evolution.create(strategy, training.stream(key, "noise"), axis=layout.axis)
    return Parts(
        loaded,
        found,
        reads,
        module,
        sampler,
        reference,
        batches,
        sampling,
        layout,
        layout.compile_step(made),
        members,
        layout.put(states[0]),
        layout.put(frozen, stacked=False),
        layout.put(asked, stacked=False),
        sum(x.size for x in params.values()),
        [*loaded.notes, *notes],
    )


def _batches(config: Any, texts: Examples, reads: Reads, ways: int) -> pipeline.Batches:
    """Those of the data set."""
    c, tiled = config, not (config.samples or reads.encoder)
    return pipeline.batches(
        texts,
        seed=c.seed,
        epochs=c.epochs,
        batch_size=c.batch_size,
        rows_multiple=ways * c.microbatches,
        pad_id=reads.reader.tokenizer.pad_id,
        tiling=pipeline.Tiling(attention.TILE, causal=True) if tiled else None,
    )


def _compared(batch: Mapping[str, Any], reads: set[str]) -> Mapping[str, Any]:
    """A batch of the data with arrays of the names and shapes that the stage before the step adds."""
    more = {"reference_log_probs": "token_weight"} if _referred(reads) else {}
    more |= {"kto_point": "text_weight"} if "kto_point" in reads else {}
    return {**batch, **{name: batch[like] for name, like in more.items()}}


def _goal(
    config: Any,
    terms: Sequence[lookup.Term],
    module: Policy,
    params: Params,
    batch: Mapping[str, Any],
    frozen_reward: relaxed.FrozenReward | None,
) -> Objective:
    """What the step minimizes, on batches like this one."""
    run = forward.language(module.apply, temperature=config.temperature)
    offered = {*jax.eval_shape(lambda p, b: run(p, {}, b, None), params, batch)}
    if frozen_reward is not None:
        ask = relaxed.reward(frozen_reward, config.relaxation)
        run = forward.language(module.apply, temperature=config.temperature, relaxed=ask)
        offered |= {"relaxed_reward"} if config.samples else set()
    return objective.language(terms, run, offered, sampled=config.samples > 0)


def _check_answers(config: Any, transformer: Any, ways: int) -> None:
    """Raises: UserError where answers of the policy cannot be sampled, be it for validation alone."""
    most = transformer.max_positions - transformer.first_position
    total, where = config.max_prompt + config.max_new_tokens, "together"
    if backbones.encodes(transformer):
        total, where = max(config.max_prompt, config.max_new_tokens), "in one of its stacks"
    if total > most:
        raise UserError(
            f"config keys 'max_prompt', 'max_new_tokens': are {total} {where}, and the policy has {most} positions"
        )
    if config.batch_size % ways:
        raise UserError(
            f"config key 'batch_size': {config.batch_size} is no multiple of the {ways} devices"
        )


def _referred(names: set[str]) -> bool:
    return any("reference" in name for name in names)
