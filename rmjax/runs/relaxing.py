"""The reward model that `relaxed` differentiates: loaded, and refused where it does not read as the policy writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from rmjax.build import model
from rmjax.build.relaxed import Judge
from rmjax.data import language
from rmjax.data.encode import Reader, encode
from rmjax.data.language import Reads
from rmjax.data.records import RatedText, Record
from rmjax.data.tokenizer import UNLIMITED
from rmjax.errors import UserError
from rmjax.models.transformer import Config
from rmjax.runs import normalization, scoring
from rmjax.train import checkpoint

PROBED = 16  # records whose reading is compared


def judge(config: Any, reads: Reads, records: Sequence[Record], *, whole: bool) -> Judge:
    """The model of the config's `reward_model`.

    reads: how the policy reads. records: to train on. whole: prompt and answer are one text to a reward model.
    Raises: UserError where there is none, or it is no single decoder of the policy's vocabulary that scores last
      tokens of whatever the policy may write.
    """
    source = config.reward_model
    refuse = lambda why: UserError(
        f"config key 'reward_model': relaxed() differentiates a reward model of the policy's own vocabulary, and "
        f"{source!r} {why}; train one by --config.model=\"trained(workdir='...')\" on the policy's run"
    )
    best = Path(source) / "checkpoints/best"
    if not source or checkpoint.latest(best) is None:
        raise refuse("is no finished run's folder")
    about = checkpoint.about(best)
    if "stop" in about:
        raise refuse("is a language model's")
    reader, shape = model.reader_of(about), Config(**about["transformer"])
    if reader.tokenizer.to_json() != reads.reader.tokenizer.to_json():
        raise refuse("has another one")
    if shape.kind != "decoder" or about["pooling"] != "last":
        raise refuse(
            f"is of kind {shape.kind!r} and pools by {about['pooling']!r}, not a 'decoder' by 'last'"
        )
    if about["unscored"] is not None:
        raise refuse("is scored before a token that texts end with")
    if about["config"]["seeds"] > 1:
        raise refuse("is an ensemble")
    longest = config.max_prompt + config.max_new_tokens + 1  # a stop token behind what was cut
    if reader.max_length < longest:
        raise refuse(f"reads {reader.max_length} tokens of up to {longest}")
    level, scale = 0.0, 1.0
    if about["config"]["normalize"] != "keep()":
        fixed = normalization.load(Path(source))
        level, scale = fixed.mean[0], fixed.scale[0]
    reads_stop = _reads_stop(reader, reads, records[:PROBED], whole=whole)
    if reads_stop is None:
        raise refuse(
            "reads answers as other tokens than the policy writes (by its template or special tokens)"
        )
    held = Path(source) / "checkpoints/frozen"
    params = {} if checkpoint.latest(held) is None else checkpoint.restore(held)["frozen"]
    params = {**params, **checkpoint.restore(best)["params"]}
    apply, stop = scoring.module_of(about).apply, reads.stop_ids[0]
    return Judge(apply, params, level, scale, stop, reads_stop)


def _reads_stop(
    reader: Reader, reads: Reads, records: Sequence[Record], *, whole: bool
) -> bool | None:
    """Whether the reward model reads answers with the policy's stop token behind them; None: as other tokens."""
    answers = [language.answers(r, compare=False)[0] for r in records]
    asked = [
        RatedText("", "", "", cast(str, r.prompt) + a, 0.0)
        if whole
        else RatedText("", "", "", a, 0.0, prompt=r.prompt)
        for r, a in zip(records, answers, strict=True)
    ]
    read = encode(asked, reader).examples.tokens
    made = language.encode(records, reads, UNLIMITED).examples
    found = set()
    for text, record in zip(made.tokens, made.per_text["record"], strict=True):
        for written, with_stop in ((text, True), (text[:-1], False)):
            if np.array_equal(written, read[record]):
                found.add(with_stop)
    return found.pop() if len(found) == 1 else None
