"""The data's own answer among the candidates of its prompt: the `data_answer` line of a config."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from rmjax import lookup
from rmjax.data import language
from rmjax.data.language import Reads
from rmjax.data.records import Record
from rmjax.errors import UserError
from rmjax.sampling.generate import Samples

# What losses read of texts as the policy drew them, which an answer of the data is not.
_OF_DRAWS = {
    "advantage",
    "advantages",
    "old_log_probs",
    "old_sequence_log_probs",
    "reference_log_probs",
    "relaxed_reward",
}


def check(config: Any, read: Collection[str]) -> None:
    """Raises: UserError on lines that do not go with data_answer. read: the arrays that the config's losses read."""
    if not config.data_answer:
        return
    where = "config key 'data_answer': "
    if not all(lookup.off(config[key], key=key) for key in ("environment", "evolution")):
        raise UserError(
            f"{where}the data's answers are no episodes, and by no member of a population; set data_answer=False"
        )
    if config.samples < 2:
        raise UserError(
            f"{where}one of the {config.samples} candidates of a prompt is the data's answer, and the others are "
            "sampled; set samples to 2 or more"
        )
    raml = lookup.name_of(config.weights, key="weights") == "raml_weights"
    if raml or not lookup.off(config.critic, key="critic"):
        raise UserError(
            f"{where}critic={config.critic!r} and weights={config.weights!r} ask how likely an answer was drawn, which "
            "of the data's is not known; set critic='none()' and weights such as 'boltzmann_weights(temperature=0.3)'"
        )
    if found := sorted(_OF_DRAWS & {*read}):
        raise UserError(
            f"{where}loss={config.loss!r} reads {', '.join(found)}, which is of what the policy drew itself; use "
            "minimum_risk(), reward_weighted() or linear_weighted(), or set data_answer=False"
        )


def of_data(records: Sequence[Record], reads: Reads, most: int) -> tuple[Samples, list[str]]:
    """The records' answers as samples [N, 1, C], cut to C = most tokens, and notes.

    Their log-probabilities are 0, and nobody reads them.
    """
    found = language.answer_ids(records, reads)
    kept = [ids[:most] for ids in found]
    tokens = np.full((len(kept), 1, most), reads.reader.tokenizer.pad_id, np.int32)
    for row, ids in zip(tokens[:, 0], kept, strict=True):
        row[: len(ids)] = ids
    cut = sum(len(ids) > most for ids in found)
    notes = [f"{cut} of the data's answers, candidates here, cut to {most} tokens"] if cut else []
    return Samples(
        tokens,
        np.zeros(tokens.shape, np.float32),
        np.array([[len(ids)] for ids in kept], np.int32),
        np.array([[ids[-1] in reads.stop_ids] for ids in kept]),
    ), notes
