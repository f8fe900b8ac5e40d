"""Conversations that grow by what is answered: the tokens between one answer and the next."""

from collections.abc import Sequence

import numpy as np

from rmjax.data.encode import groups, openings
from rmjax.data.language import Reads
from rmjax.errors import UserError

_FIRST = (("user", "?"),)  # a conversation to compare with
_ANSWER = "ok"


def following(observations: Sequence[str], reads: Reads) -> list[np.ndarray]:
    """Token ids of each observation as the next turn, from behind an answer's stop token to where the next one begins.

    Text by text this is what a prompt of the whole conversation would have there: by the template, else the observation
    as it is. Answers themselves are never tokenized anew.
    Raises: UserError where the template renders a conversation otherwise once it goes on.
    """
    reader = reads.whole
    if reader.template is None:
        made, _, _ = openings(reader, observations)
        special = list(reader.tokenizer.special)
        opening = lambda ids: int(np.cumprod(np.isin(ids, special)).sum())
        return [ids[opening(ids) :] for ids in made]
    ((first,),), _ = groups(reader, [_FIRST], [(_ANSWER,)])
    ends = np.flatnonzero(np.isin(first.completion, reads.stop_ids))
    grown = [(*_FIRST, ("assistant", _ANSWER), ("user", o)) for o in observations]
    made, _, _ = openings(reader, grown)
    before = first.whole[: len(first.prompt) + ends[0] + 1] if len(ends) else []
    if not len(before) or any(not np.array_equal(ids[: len(before)], before) for ids in made):
        raise UserError(
            "config key 'environment': the chat template renders an answer otherwise once the conversation goes on, "
            "or ends it by no stop token, so turns cannot be added; use another template"
        )
    return [ids[len(before) :] for ids in made]
