"""A tokenizer as a Hugging Face folder holds it: tokenizer.json, and what the files beside it say of its use."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rmjax.data import tokenizer_classes
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError


class Stored(NamedTuple):
    """A tokenizer and its use.

    template: of conversations, "" if there is none. bos_token, eos_token: as the template may name them, "" for none.
    eos_ids: tokens that end a completion by config.json or generation_config.json.
    max_length: tokens at which texts are cut where cutting is asked for; 0: not said.
    cut_front: texts are cut at their front. types: the second of two segments has token type 1.
    escaped: special tokens that a text spells are text.
    """

    tokenizer: Tokenizer
    template: str
    bos_token: str
    eos_token: str
    eos_ids: tuple[int, ...]
    max_length: int
    cut_front: bool
    types: bool
    escaped: bool


def load(folder: Path) -> Stored:
    """The tokenizer of a model folder.

    Raises: UserError naming the file that cannot be read.
    """
    known, model, generation = (
        _json(folder / f"{name}.json")
        for name in ("tokenizer_config", "config", "generation_config")
    )
    how = tokenizer_classes.find(known.get("tokenizer_class"), str(model.get("model_type")))
    tokenizer = Tokenizer.from_file(
        folder / "tokenizer.json", lambda own: {**own, **how.parts(own, known)}
    )
    more = {} if "added_tokens_decoder" in known else _json(folder / "special_tokens_map.json")
    names = {name: t for name, t in how.names.items() if tokenizer.id_of(t) is not None}
    names |= {
        k: _spelled(v) for k, v in {**known, **more}.items() if k in ("bos_token", "eos_token")
    }
    most, inputs = known.get("model_max_length") or 0, known.get("model_input_names")
    typed = how.types if inputs is None else "token_type_ids" in inputs
    return Stored(
        tokenizer,
        _template(folder, known),
        names.get("bos_token", ""),
        names.get("eos_token", ""),
        _ids(model.get("eos_token_id")) + _ids(generation.get("eos_token_id")),
        int(most) if most < 1e9 else 0,  # transformers writes 1e30 where it is not known
        known.get("truncation_side") == "left",
        typed and (how.types or tokenizer.types),
        bool(known.get("split_special_tokens")),
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path}: is not JSON in UTF-8: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no JSON object")
    return found


def _template(folder: Path, known: Mapping[str, Any]) -> str:
    """The chat template: of a file of its own, else of tokenizer_config.json, of several the default one."""
    single = folder / "chat_template.jinja"
    try:
        if single.exists():
            return single.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{single}: is not text in UTF-8: {error}") from error
    found = known.get("chat_template") or ""
    if isinstance(found, list):
        found = {one["name"]: one["template"] for one in found}.get("default", "")
    return found


def _spelled(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else token or ""


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else () if value is None else (int(value),)
