"""Conversations that grow by what is answered: the tokens between one answer and the next."""

from collections.abc import Sequence

import numpy as np

from rmjax.data import encode
from rmjax.data.language import WHOLE, Reads
from rmjax.errors import UserError

_FIRST = (("user", "?"),)  # a conversation to compare with
_ANSWER = "ok"


def following(observations: Sequence[str], reads: Reads) -> list[np.ndarray]:
    """Token ids of each observation as the next turn, from behind an answer's stop token to where the next one begins.

    Text by text this is what a prompt of the whole conversation would have there: by the template, else the observation
    as it is, with the tokenizer's tokens behind a prompt. Answers themselves are never tokenized anew.
    Raises: UserError where the template renders a conversation otherwise once it goes on.
    """
    reader = reads.reader._replace(max_length=WHOLE)
    if reader.template is None:
        made, _ = encode.groups(reader, observations, [("",)] * len(observations))
        special = list(reader.tokenizer.special)
        opening = lambda ids: int(np.cumprod(np.isin(ids, special)).sum())
        return [g.prompt[opening(g.prompt) :] for g in made]
    (first,), _ = encode.groups(reader, [_FIRST], [(_ANSWER,)])
    ends = np.flatnonzero(np.isin(first.completions[0], reads.stop_ids))
    grown = [(*_FIRST, ("assistant", _ANSWER), ("user", o)) for o in observations]
    made, _ = encode.groups(reader, grown, [("",)] * len(grown))
    before = (
        np.concatenate([first.prompt, first.completions[0][: ends[0] + 1]]) if len(ends) else []
    )
    if not len(before) or any(not np.array_equal(g.prompt[: len(before)], before) for g in made):
        raise UserError(
            "config key 'environment': the chat template renders an answer otherwise once the conversation goes on, "
            "or ends it by no stop token, so turns cannot be added; use another template"
        )
    return [g.prompt[len(before) :] for g in made]
