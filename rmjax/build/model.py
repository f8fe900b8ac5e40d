"""The `model` and `adapter` lines of a config: a linen module, its weights by path, and its tokenizer."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from huggingface_hub import snapshot_download

from rmjax import assets, lookup
from rmjax.data import chat
from rmjax.data.encode import Reader
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.models import gguf, heads, presets, safetensors
from rmjax.models.layers import Adapter
from rmjax.models.lora import merge
from rmjax.models.policy import CRITIC
from rmjax.models.transformer import Config, LanguageModel, Transformer
from rmjax.train import checkpoint
from rmjax.train.state import gather, unflatten


class Backbone(NamedTuple):
    """A transformer before its head: `weights` by path, empty where it starts from nothing."""

    config: Config
    weights: dict[str, np.ndarray]
    tokenizer: Tokenizer
    pooling: str
    template: chat.Template | None = None  # of conversations
    max_length: int = 0  # tokens that the tokenizer's maker has it cut at; 0: not said
    labels: tuple[str, ...] = ()  # what a stored classifier calls its outputs
    stop: str = ""  # the token that ends an answer


def pretrained(*, source: str = "minilm", pooling: str = "", new_head: bool = False) -> Backbone:
    """Pretrained weights of BERT, RoBERTa, GPT-2, LLaMA, Mistral, Qwen2, Qwen3, Gemma 3 (of text) or T5.

    source: "minilm" or "smollm2" (fetched once), a Hugging Face folder, hf://ORG/NAME or hf://ORG/NAME@REVISION, or a
      .gguf file of LLaMA, Mistral, Qwen2, Qwen3, GPT-2 or Gemma 3.
    pooling: mean, first or last; default: what a stored classifier reads, else the mean of encoders, last of others.
    new_head: leave a stored classifier's head out, to train one of another kind.
    """
    found = _without_output(stored(source))
    if new_head:
        kept = {k: w for k, w in found.weights.items() if not k.startswith("head/")}
        found = found._replace(weights=kept)
    return found._replace(pooling=pooling or found.pooling)


def _without_output(found: Backbone) -> Backbone:
    """Without output embeddings, for which a reward model has no use."""
    kept = {k: w for k, w in found.weights.items() if not k.startswith("unembed")}
    return found._replace(weights=kept)


def stored(source: str, *, key: str = "model") -> Backbone:
    """All that a `source` of `pretrained` holds, output embeddings ("unembed") included; key: of the config."""
    path = _path(source, key)
    pooling, most, labels = "", 0, ()
    if path.suffix == ".gguf":
        read = gguf.load(path)
        config, weights = read.config, read.weights
        tokenizer = Tokenizer.from_json(read.tokenizer)
        template = read.template
        tokens = {"bos_token": read.bos_token, "eos_token": read.eos_token}
    else:
        config, weights, pooling, labels = safetensors.load(path)
        tokenizer = Tokenizer.from_file(path / "tokenizer.json")
        template, tokens, most = _template(path)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(f"{path}/tokenizer.json has {tokenizer.vocab_size} tokens, the weights beside it "
                        f"{config.vocab_size}; bring the model's own tokenizer.json")  # fmt: skip
    made = None
    if template:
        made = chat.Template(template, **tokens, special_tokens=tokenizer.special_tokens)
    usual = "mean" if config.kind == "encoder" else "last"
    stop = tokens.get("eos_token", "")
    return Backbone(config, weights, tokenizer, pooling or usual, made, most, labels, stop)


def _path(source: str, key: str) -> Path:
    """The folder or .gguf file that a `source` names, fetched where it is not here.

    Raises: UserError if there is none.
    """
    if source == "minilm":
        return assets.folder("minilm")
    if source == "smollm2":
        return next(assets.folder("smollm2").glob("*.gguf"))
    if source.startswith("hf://"):
        name, _, revision = source.removeprefix("hf://").partition("@")
        wanted = ["*.json", "*.safetensors", "*.jinja"]
        try:
            found = snapshot_download(name, revision=revision or None, allow_patterns=wanted)
        except Exception as error:  # the hub's and the network's errors share no class
            raise UserError(
                f"config key '{key}': {source} cannot be fetched: {error}; a local folder needs no network"
            ) from error
        return Path(found)
    path = Path(source)
    if not (path.is_dir() or (path.suffix == ".gguf" and path.is_file())):
        raise UserError(f"config key '{key}': there is no {source!r}; name a folder with config.json, "
                        "model.safetensors and tokenizer.json, a .gguf file, 'minilm', 'smollm2' or "
                        "hf://ORG/NAME")  # fmt: skip
    return path


def _template(folder: Path) -> tuple[str, dict[str, str], int]:
    """The chat template beside a tokenizer, "" if there is none, the tokens it may name, and where texts are cut."""
    file, single = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        template = known.get("chat_template") or ""
        if single.exists():
            template = single.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{file}: is not JSON in UTF-8: {error}") from error
    if isinstance(template, list):  # several, by name
        template = {t["name"]: t["template"] for t in template}.get("default", "")
    text = lambda token: token["content"] if isinstance(token, dict) else token or ""
    most = known.get("model_max_length") or 0
    most = int(most) if most < 1e9 else 0  # transformers writes 1e30 where it is not known
    return template, {name: text(known.get(name)) for name in ("bos_token", "eos_token")}, most


def tiny_encoder(*, width: int = 32, layers: int = 2, pooling: str = "mean") -> Backbone:
    """A small encoder over bytes, from scratch."""
    tokenizer = Tokenizer.bytes()
    return Backbone(
        presets.encoder(tokenizer.vocab_size, width, layers, 512), {}, tokenizer, pooling
    )


def tiny_decoder(*, width: int = 32, layers: int = 2, pooling: str = "last") -> Backbone:
    """A small causal decoder over bytes, from scratch."""
    tokenizer = Tokenizer.bytes()
    config = presets.decoder(tokenizer.vocab_size, width, layers, 512)
    return Backbone(config, {}, tokenizer, pooling, stop="</s>")


def tiny_encoder_decoder(*, width: int = 32, layers: int = 2, pooling: str = "last") -> Backbone:
    """A small encoder–decoder over bytes, from scratch, of T5's shape."""
    tokenizer = Tokenizer.bytes()
    config = presets.encoder_decoder(tokenizer.vocab_size, width, layers, 512)
    return Backbone(config, {}, tokenizer, pooling, stop="</s>")


def trained(*, workdir: str, pooling: str = "last") -> Backbone:
    """The transformer and tokenizer of the language model that a run of experiments.optimize_policy trained."""
    return _without_output(finished(workdir))._replace(pooling=pooling)


def finished(workdir: str, *, key: str = "model") -> Backbone:
    """The language model that a run of experiments.optimize_policy trained, adapters merged, from its folder.

    key: of the config that names it.
    """
    best = Path(workdir) / "checkpoints/best"
    if checkpoint.latest(best) is None:
        raise UserError(
            f"config key '{key}': {workdir} holds no checkpoints/best; name the folder of a finished run of "
            "experiments.optimize_policy, or train it first"
        )
    about = checkpoint.about(best)
    if "stop" not in about:
        raise UserError(
            f"config key '{key}': {workdir} is a reward model's run, not a language model's"
        )
    params = merged(Path(workdir), about)
    template = about["template"] and chat.Template(**about["template"])
    return Backbone(
        Config(**about["transformer"]),
        {k: x for k, x in params.items() if not k.startswith(CRITIC)},
        Tokenizer.from_json(about["tokenizer"]),
        "last",
        template or None,
        stop=about["stop"],
    )


def merged(workdir: Path, about: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The best parameters of a run of one seed by path, those that it never trained among them, adapters merged.

    about: the description of its best checkpoint.
    """
    best, held = workdir / "checkpoints/best", workdir / "checkpoints/frozen"
    found = {} if checkpoint.latest(held) is None else checkpoint.restore(held)["frozen"]
    params = {k: jnp.asarray(x) for k, x in {**found, **checkpoint.restore(best)["params"]}.items()}
    adapter = lookup.bind(about["config"]["adapter"], ADAPTERS, key="adapter")()
    params = params if adapter is None else merge(params, adapter)
    return {k: np.asarray(x) for k, x in params.items()}


MODELS = {
    f.__name__: f for f in (pretrained, trained, tiny_encoder, tiny_decoder, tiny_encoder_decoder)
}


def none() -> Adapter | None:
    """No adapter: whatever `frozen` leaves is trained."""


def lora(
    *,
    rank: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.0,
    targets: str = r"/(query|key|value|output|gate|up|down)$",
    rank_stabilized: bool = False,
) -> Adapter:
    """LoRA beside the projections whose path the regular expression `targets` finds; the head is trained too.

    alpha: the adapter's product counts alpha / rank, or alpha / sqrt(rank) if rank_stabilized (rsLoRA).
    Raises: UserError on values outside their range.
    """
    if rank < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise UserError("config key 'adapter': lora() needs rank of 1 or more, alpha above 0 and dropout in [0, 1), "
                        f"not rank={rank}, alpha={alpha}, dropout={dropout}")  # fmt: skip
    try:
        re.compile(targets)
    except re.error as error:
        raise UserError(f"config key 'adapter': targets={targets!r}: {error}") from error
    return Adapter(rank, alpha / rank ** (0.5 if rank_stabilized else 1.0), dropout, targets)


ADAPTERS = {f.__name__: f for f in (none, lora)}


def reward_model(
    config: Config,
    head: nn.Module,
    pooling: str,
    *,
    dtype: str,
    dropout: float = 0.0,
    remat: bool = False,
    adapter: Adapter | None = None,
) -> heads.RewardModel:
    """The module."""
    if pooling not in heads.POOLINGS:
        raise UserError(
            f"config key 'model': pooling={pooling!r} is none of {', '.join(heads.POOLINGS)}"
        )
    made = transformer(config, dtype, dropout=dropout, remat=remat, adapter=adapter)
    return heads.RewardModel(made, head, pooling)


def transformer(
    config: Config,
    dtype: str,
    *,
    dropout: float = 0.0,
    remat: bool = False,
    adapter: Adapter | None = None,
) -> Transformer:
    """The module. Blocks are unrolled on CPU, where a scan's slices cost more than its compile time saves."""
    unroll = config.layers if jax.default_backend() == "cpu" else 1
    return Transformer(config, dtype, dropout, remat, unroll, adapter)


def language_model(found: Backbone, dtype: str) -> tuple[LanguageModel, dict[str, Any]]:
    """The module of a language model and its variables, to sample from."""
    weights = {k: jnp.asarray(x) for k, x in found.weights.items() if not k.startswith("head/")}
    return LanguageModel(transformer(found.config, dtype)), {"params": unflatten(weights)}


def policy_of(source: str) -> Backbone:
    """The language model of a run folder, or of a source as of `pretrained`.

    Raises: UserError where there is none that decodes.
    """
    if not (source.startswith("hf://") or source in ("minilm", "smollm2") or Path(source).exists()):
        raise UserError(
            f"--policy: there is no {source!r}; name the folder of a finished run of experiments.optimize_policy, a "
            "Hugging Face folder, a .gguf file, 'smollm2' or hf://ORG/NAME"
        )
    found = finished(source) if (Path(source) / "checkpoints").is_dir() else stored(source)
    if found.config.kind == "encoder":
        raise UserError(f"--policy={source!r} is an encoder, which cannot answer")
    return found


def encodes(config: Config) -> bool:
    """Whether an encoder reads the prompts that a decoder answers."""
    return config.kind == "encoder_decoder"


def shares(config: Config, pooling: str) -> bool:
    """Whether texts may keep what they begin with alike once: where no token sees what comes later."""
    return config.kind == "decoder" and pooling != "first"


def reader_of(about: Mapping[str, Any]) -> Reader:
    """How the model that a checkpoint's description is of reads records."""
    return Reader(
        Tokenizer.from_json(about["tokenizer"]),
        None if about["template"] is None else chat.Template(**about["template"]),
        about["config"]["max_length"],
        shares(Config(**about["transformer"]), about["pooling"]),
    )


def initialize(
    module: nn.Module, weights: dict[str, np.ndarray], rng: jax.Array
) -> dict[str, jax.Array]:
    """Fresh parameters by path, those of `weights` put in place.

    Raises: UserError where a weight has no parameter of its name and shape, or where weights are given and do
      not cover the transformer. A stored head must be the config's.
    """
    one = jnp.zeros((1, 1), jnp.int32)
    params = gather(dict(jax.jit(module.init)(rng, one, one, one + 1, one)))
    surplus = [k for k, w in weights.items() if k not in params or params[k].shape != w.shape]
    fresh = (
        [k for k in params if k.startswith(("transformer/", "unembed")) and k not in weights]
        if weights
        else []
    )
    if any(k.startswith("head/") for k in surplus):
        held = {k: w.shape for k, w in sorted(weights.items()) if k.startswith("head/")}
        raise UserError(f"config key 'head': the weights come with another head, {held}; scalar() has head/score, "
                        "classes() head/logits, and hidden=True adds head/dense; or have "
                        "model=\"pretrained(..., new_head=True)\"")  # fmt: skip
    if surplus or fresh:
        raise UserError(
            f"these weights do not fit the model: surplus or of another shape {surplus}, missing {fresh}"
        )
    return {k: jnp.asarray(weights.get(k, v)) for k, v in params.items()}


def longest(config: Config, max_length: int) -> int:
    """max_length, checked against the model's positions."""
    most = config.max_positions - config.first_position
    if not 8 <= max_length <= most:
        raise UserError(f"config key 'max_length': {max_length} is outside 8..{most}")
    return max_length


def describe(config: Config) -> dict:
    """The Config as JSON, from which a run folder rebuilds it."""
    return dataclasses.asdict(config)
