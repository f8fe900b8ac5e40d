"""Episodes in an environment as texts to learn from: the player's tokens are predicted, the environment's only read.

Legend: B prompts (first observations), K episodes of each, N = B K, C tokens that a player says in an episode.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmjax import lookup
from rmjax.data import turns
from rmjax.data.examples import Examples
from rmjax.data.language import Reads
from rmjax.data.records import Data, Record, Text
from rmjax.environments import ENVIRONMENTS
from rmjax.environments.protocol import Environment, Turn
from rmjax.errors import UserError
from rmjax.rl.packing import Prompts
from rmjax.rl.rollout import Drawn, Write
from rmjax.sampling.generate import Samples
from rmjax.sampling.keys import key_rows

# speak(params, contexts [N], key data [N, 1, 2]) -> host Samples [N, 1, c]: one action of each episode.
Speak = Callable[[Any, Sequence[np.ndarray], np.ndarray], Samples]


def plan(config: Any, words: int, terms: Sequence[lookup.Term]) -> Environment | None:
    """The environment of a config, None where it names none.

    words: of a text that are its prompt. terms: of the loss.
    Raises: UserError naming the key, also of a line that means nothing beside an environment.
    """
    c = config
    if lookup.off(c.environment, key="environment"):
        return None
    refuse = lambda key, why: UserError(f"config key '{key}': {why}")
    try:
        made = lookup.bind(c.environment, ENVIRONMENTS, key="environment")()
    except ValueError as error:
        raise refuse("environment", error) from error
    for key in ("data", "reward", "gold", "reward_shaping", "evolution"):
        if not lookup.off(c[key], key=key):
            raise refuse(
                key,
                f"an environment gives its own observations and rewards, turn by turn; set {key}='none()'",
            )
    if words:
        raise refuse("prompts", "an environment's first observations are the prompts; set 'none()'")
    learned = [t.name for t in terms if "data_weight" in lookup.arrays(t.function)]
    if learned:
        raise refuse("loss", f"{learned[0]} learns from texts of the data; an environment has none")
    if any("relaxed_reward" in lookup.arrays(t.function) for t in terms):
        raise refuse(
            "loss",
            "relaxed() differentiates a reward model; an environment gives rewards of its own",
        )
    if c.rollout_parts != 1:
        raise refuse(
            "rollout_parts",
            "an environment rewards each turn before the next is sampled; set rollout_parts=1",
        )
    if lookup.name_of(c.baseline, key="baseline") == "moving_average":
        raise refuse(
            "baseline", "an average of whole returns is none of what later turns earn; use leave_one_out()"
        )  # fmt: skip
    if c.samples < 1:
        raise refuse("samples", "an environment is learned from by playing it; set 1 or more")
    if c.train_seeds < c.batch_size:
        raise refuse(
            "train_seeds", f"{c.train_seeds} are fewer than batch_size={c.batch_size}, the seeds of one rollout"
        )  # fmt: skip
    if c.max_prompt + c.max_new_tokens > c.max_length:
        raise refuse(
            "max_length", f"{c.max_length} holds no first observation (max_prompt={c.max_prompt}) with an action "
            f"(max_new_tokens={c.max_new_tokens})"
        )  # fmt: skip
    return made


def data(environment: Environment, config: Any) -> Data:
    """A record of each seed, whose prompt is the first observation: 0, 1, ... to train on, the next are held out."""
    c = config
    counts = np.cumsum([0, c.train_seeds, c.validation_prompts, c.test_prompts]).tolist()

    def record(seed: int) -> Record:
        _, observation = environment.reset(seed)
        return Text(str(seed), environment.name, str(seed), "", observation)

    train, validation, test = (
        [record(seed) for seed in range(*ends)] for ends in zip(counts, counts[1:], strict=False)
    )
    return Data(train, validation, test, None, [])


def playing(environment: Environment, speak: Speak, reads: Reads, config: Any) -> Write:
    """Returns what plays K episodes from each prompt, whose `number` is its seed.

    A rollout's randomness is that of (seed, step, prompt, episode, turn) alone.
    """
    c, room = config, config.max_length - config.max_new_tokens
    most = environment.turns * c.max_new_tokens

    def write(params, prompts: Prompts, step: int, count: int) -> Drawn:
        keys = key_rows(c.seed, step, prompts.number, count).reshape(-1, 1, 2)
        games = [
            _Game(environment.reset(int(number))[0], ids.tolist())
            for ids, number in zip(prompts.ids, prompts.number, strict=True)
            for _ in range(count)
        ]
        for turn in range(environment.turns):
            live = np.array([not g.done and len(g.tokens) <= room for g in games])
            if not live.any():
                break
            # Those that are over keep their row, so that every turn is one program: what they say is not heard.
            asked = [g.tokens if on else g.tokens[:1] for g, on in zip(games, live, strict=True)]
            said = speak(params, list(map(np.array, asked)), _of_turn(keys, turn))
            rows = np.flatnonzero(live)
            _take(environment, [games[i] for i in rows], said, rows, turn, reads)
        return _drawn(games, prompts, count, most)

    return write


@dataclasses.dataclass
class _Game:
    """An episode so far: its state, its tokens, and of each token that was said its place, nats, reward and turn."""

    state: Any
    tokens: list[int]
    places: list[int] = dataclasses.field(default_factory=list)
    log_probs: list[float] = dataclasses.field(default_factory=list)
    rewards: list[float] = dataclasses.field(default_factory=list)
    turn: list[int] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)
    done: bool = False

    def say(self, ids: np.ndarray, log_probs: np.ndarray, turn: int) -> None:
        """Adds an action's tokens."""
        self.places += range(len(self.tokens), len(self.tokens) + len(ids))
        self.tokens += ids.tolist()
        self.log_probs += log_probs.tolist()
        self.rewards += [0.0] * len(ids)
        self.turn += [turn] * len(ids)

    def hear(self, action: str, found: Turn, tail: list[int]) -> None:
        """Adds what an action led to; its reward is that of its last token."""
        self.state, self.done = found.state, bool(found.done)
        self.rewards[-1] = float(found.reward)
        self.tokens += [] if found.done else tail
        self.lines += [f"> {action}", *([found.observation] if found.observation else [])]


def _take(
    environment: Environment,
    games: Sequence[_Game],
    said: Samples,
    rows: np.ndarray,
    turn: int,
    reads: Reads,
) -> None:
    """One turn of the games whose actions are at `rows` of what was said."""
    actions, found = [], []
    for game, row in zip(games, rows, strict=True):
        ids = said.tokens[row, 0, : said.lengths[row, 0]]
        game.say(ids, said.log_probs[row, 0, : len(ids)], turn)
        actions.append(reads.reader.tokenizer.decode(ids))
        found.append(environment.step(game.state, actions[-1]))
    tails = turns.following([f.observation for f in found], reads)
    for game, row, action, one, tail in zip(games, rows, actions, found, tails, strict=True):
        # An action that was cut has its end put there, to be read and not to be learned.
        closing = [] if said.stopped[row, 0] else [reads.stop_ids[0]]
        game.hear(action, one, [*closing, *tail.tolist()])


def _drawn(games: Sequence[_Game], prompts: Prompts, count: int, most: int) -> Drawn:
    """most: C."""

    def padded(values: Sequence[list], dtype: Any) -> np.ndarray:
        made = np.zeros((len(values), most), dtype)
        for row, own in zip(made, values, strict=True):
            row[: len(own)] = own
        return made

    rewards = padded([g.rewards for g in games], np.float32)
    return Drawn(
        _examples(games, prompts, count),
        ["\n".join(g.lines) for g in games],
        lambda: rewards.sum(axis=1),
        padded([g.log_probs for g in games], np.float32),
        np.array([len(g.places) for g in games]),
        np.array([g.done for g in games]),
        np.ones(len(games), bool),
        {"token_rewards": rewards, "turn": padded([g.turn for g in games], np.int32)},
    )


def _examples(games: Sequence[_Game], prompts: Prompts, count: int) -> Examples:
    """Each episode a text, those of a prompt a group; what the environment said is not predicted."""
    n = len(games)
    one = np.ones(sum(len(g.places) for g in games), np.float32)
    return Examples(
        # What was heard last is read by nobody where there was no room, or no turn, to answer it.
        tokens=[np.array(g.tokens[: g.places[-1] + 1], np.int32) for g in games],
        ids=[str(seed) for seed in np.repeat(prompts.number, count)],
        weight=np.ones(n, np.float32),
        kin=np.repeat(np.arange(n // count), count),
        per_text={"record": np.arange(n, dtype=np.int32)},
        fixed=list(np.arange(n).reshape(-1, count)),
        share=count > 1,
        starts=np.array([g.places[0] for g in games], np.int64),
        aims=[np.array(g.places) for g in games],
        per_token={"token_weight": one, "data_weight": 0 * one},
    )


def _of_turn(keys: np.ndarray, turn: int) -> np.ndarray:
    """Key data of one turn [N, 1, 2] from those of episodes."""
    fold = jax.vmap(jax.random.fold_in, (0, None))
    folded = fold(jax.random.wrap_key_data(jnp.asarray(keys[:, 0])), turn)
    return np.asarray(jax.random.key_data(folded))[:, None]
