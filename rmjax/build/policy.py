"""A policy config to everything a run needs, checked in the order of what is cheap to check."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from rmjax import lookup
from rmjax.build import model, objective, training
from rmjax.build.data import DATA, Data
from rmjax.build.model import Backbone
from rmjax.data import language, pipeline
from rmjax.data.encode import Reader
from rmjax.data.records import Prompt, Record
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.models import attention, presets, shardings
from rmjax.models.transformer import Policy, Transformer
from rmjax.train import forward, parallel, step
from rmjax.train.state import Params, State


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
    """A pretrained causal language model: "smollm2", a Hugging Face folder, hf://ORG/NAME or a .gguf file."""
    return model.stored(source)


POLICIES = {f.__name__: f for f in (gpt, pretrained, model.trained, model.tiny_decoder)}


def given() -> int:
    """Prompts are those of the data."""
    return 0


def opening(*, words: int = 4) -> int:
    """Prompts are the opening words of texts that have none; what follows them is the answer.

    Raises: ValueError if words < 1.
    """
    if words < 1:
        raise ValueError(f"words must be at least 1, got {words}")
    return words


PROMPTS = {f.__name__: f for f in (given, opening)}


class Reads(NamedTuple):
    """How a policy reads, as `data.language.Policy`."""

    reader: Reader
    stop_ids: tuple[int, ...]


class Plan(NamedTuple):
    """What the config's lines name, bound and checked before anything is loaded."""

    terms: list[lookup.Term]
    records: Callable[[], Data]
    words: int  # that open a text and are its prompt; 0: prompts are given
    policy: Callable[..., Backbone]
    training: training.Training

    @property
    def reads(self) -> set[str]:
        """All arrays that the terms can read."""
        return {name for term in self.terms for name in lookup.arrays(term.function)}

    @property
    def paired(self) -> bool:
        """Whether the chosen answer is compared with the rejected one."""
        return any(name.startswith("chosen") for name in self.reads)


class Parts(NamedTuple):
    """A run, ready to start."""

    data: Data
    backbone: Backbone
    reads: Reads
    module: Policy
    params: Params  # at the start, on the host or the first device: the reference policy
    batches: pipeline.Batches
    layout: parallel.Layout
    step: Callable
    state: State
    frozen: Params
    notes: list[str]


def plan(config: Any) -> Plan:
    """Binds every spec string.

    Raises: UserError naming the key.
    """
    keys = ("batch_size", "microbatches", "log_every", "save_every")
    trained = training.plan(config, keys)
    try:
        words = lookup.bind(config.prompts, PROMPTS, key="prompts")()
    except ValueError as error:
        raise UserError(f"config key 'prompts': {error}") from error
    return Plan(
        objective.terms(config.loss, ()),
        lookup.bind(config.data, DATA, key="data"),
        words,
        lookup.bind(config.policy, POLICIES, key="policy"),
        trained,
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


def backbone(config: Any, chosen: Plan, loaded: Data) -> tuple[Backbone, Reads]:
    """The policy's transformer and how it reads.

    Raises: UserError where it is no causal language model or has no stop token.
    """
    texts = lambda: [text for r in loaded.train for text in (_said(r.prompt), *_answers(r))]
    try:
        wanted = "texts" in lookup.arrays(chosen.policy)
        found = chosen.policy(texts()) if wanted else chosen.policy()
    except ValueError as error:
        raise UserError(f"config key 'policy': {error}") from error
    if found.config.kind != "decoder":
        raise UserError(
            f"config key 'policy': {config.policy} is an {found.config.kind}; a policy is a causal decoder"
        )
    stop = found.tokenizer.id_of(found.stop)
    if stop is None:
        raise UserError(
            f"config key 'policy': {config.policy} names no token that ends a text (eos_token)"
        )
    template = None if chosen.words else found.template
    reader = Reader(
        found.tokenizer, template, config.max_length, model.shares(found.config, "last")
    )
    return found, Reads(reader, (stop,))


def assemble(
    config: Any, chosen: Plan, loaded: Data, found: Backbone, reads: Reads, dtype: str
) -> Parts:
    """Builds batches of the data, the module, optimizer, step and the placed first state.

    loaded: of `prompted`. found, reads: of `backbone`. dtype: of products.
    Raises: UserError where lines of the config do not fit each other or the data.
    """
    c, adapter = config, chosen.training.adapter
    layout = chosen.training.layout(shardings.spec, 1)
    most = model.longest(found.config, c.max_length)
    texts, notes = language.encode(loaded.train, reads, most, compare=chosen.paired)
    batches = pipeline.batches(
        texts,
        seed=c.seed,
        epochs=c.epochs,
        batch_size=c.batch_size,
        offer=(),
        rows_multiple=layout.ways * c.microbatches,
        pad_id=found.tokenizer.pad_id,
        tiling=pipeline.Tiling(attention.TILE, causal=True),
    )
    module = policy_module(
        found, dtype=dtype, dropout=c.dropout, remat=c.remat, adapter=adapter, critic=c.critic
    )
    key = jax.random.key(c.seed)
    params = model.initialize(module, found.weights, training.stream(key, "init"))
    run = forward.language(module.apply, temperature=c.temperature)
    offered = jax.eval_shape(lambda p, b: run(p, {}, b, None), params, batches[0])
    goal = objective.language(chosen.terms, run, set(offered))
    update = training.update(c, chosen.training, len(batches))
    held = training.held(c.frozen, adapter, params)
    states, frozen = training.states([params], held, update, [key])
    made = step.make_step(goal, update, axis=layout.axis, microbatches=c.microbatches)
    return Parts(
        loaded,
        found,
        reads,
        module,
        params,
        batches,
        layout,
        layout.compile_step(made),
        layout.put(states[0]),
        layout.put(frozen, stacked=False),
        [*loaded.notes, *notes],
    )


def policy_module(
    found: Backbone,
    *,
    dtype: str,
    dropout: float = 0.0,
    remat: bool = False,
    adapter: Any = None,
    critic: bool = False,
) -> Policy:
    """The module, its blocks unrolled where that is faster."""
    unroll = found.config.layers if jax.default_backend() == "cpu" else 1
    return Policy(Transformer(found.config, dtype, dropout, remat, unroll, adapter), critic=critic)


def _answers(record: Record) -> tuple[str, ...]:
    return language.answers(record, compare=False)


def _said(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(content for _, content in prompt)
