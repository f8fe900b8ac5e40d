"""What a policy earns in an environment on held-out seeds, and what was said there."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rmjax.data.records import Record
from rmjax.environments.protocol import Environment
from rmjax.rl import episodes, policy_evaluation, rollout
from rmjax.rl.parts import Parts


def player(config: Any, parts: Parts, environment: Environment) -> rollout.Write:
    """What plays the environment, compiled for the run's layout."""
    draw, room = policy_evaluation.drawer(config, parts), config.max_length - config.max_new_tokens
    speak = lambda params, contexts, keys: draw(params, contexts, keys, room)
    return episodes.playing(environment, speak, parts.reads, config)


def writer(
    config: Any, parts: Parts, does: rollout.Functions, play: rollout.Write
) -> Callable[[Any, Sequence[Record]], policy_evaluation.Written]:
    """Returns write(params, records) -> one episode of each record's seed, always with the same keys.

    As many at a time as in a rollout. "reward" is the return; an episode that was cut, by room or turns, has no stop.
    """
    size = config.batch_size * config.samples
    bounds = rollout.bounds_of_one(config, parts.reads, parts.layout.ways)._replace(prompts=size)

    def write(params: Any, records: Sequence[Record]) -> policy_evaluation.Written:
        prompts, _ = rollout.prompts_of(records, parts.reads, config.max_prompt)
        prompts = prompts._replace(number=np.array([int(r.id) for r in records]))
        texts, found = [], []
        for own, real in policy_evaluation.batched(prompts, size):
            drawn = play(params, own, policy_evaluation.KEYS, 1)
            kl = policy_evaluation.divergence(
                does, params, drawn.examples, bounds, drawn.log_probs.shape
            )
            texts += drawn.texts[:real]
            found.append(np.stack([drawn.reward(), kl, drawn.lengths, drawn.stopped])[:, :real])
        reward, kl, lengths, stopped = np.concatenate(found, axis=1)
        return policy_evaluation.Written(texts, {"reward": reward}, kl, lengths, stopped > 0)

    return write
