"""The `model` and `adapter` lines of a config: a linen module, its weights by path, and its tokenizer."""

import dataclasses
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
from rmjax.data import chat, tokenizer_config
from rmjax.data.encode import Reader
from rmjax.data.language import Reads
from rmjax.data.tokenizer import Layout, Tokenizer
from rmjax.errors import UserError
from rmjax.models import gguf, heads, presets, safetensors
from rmjax.models.layers import Adapter
from rmjax.models.lora import merge
from rmjax.models.outputs import Outputs
from rmjax.models.policy import CRITIC
from rmjax.models.transformer import Config, LanguageModel, Transformer
from rmjax.train import checkpoint
from rmjax.train.state import gather, unflatten

READING = 3  # by which rules run folders were tokenized; others are refused
SPECIAL_TOKENS = ("", "parse", "text")  # of the line special_tokens


class Backbone(NamedTuple):
    """A transformer before its head, and how it reads: `weights` by path, empty where it starts from nothing.

    template: of conversations. outputs: what those of a stored classifier are. stop: the token that ends an answer.
    stop_ids: further ones that do. layout, types, unscored: as of `Reader`; layout.pairs of an encoder.
    """

    config: Config
    weights: dict[str, np.ndarray]
    tokenizer: Tokenizer
    pooling: str
    template: chat.Template | None = None
    outputs: Outputs | None = None
    stop: str = ""
    stop_ids: tuple[int, ...] = ()
    layout: Layout = Layout()
    types: bool = False
    unscored: int | None = None
    dtype: str = "float32"  # that the weights are stored in

    def dated(self, date: str) -> "Backbone":
        """The same, its template rendering that date where it renders today's."""
        return self._replace(template=self.template and self.template.dated(date))

    def reading(self) -> dict[str, Any]:
        """How it reads, as JSON: what `reader_of` reads."""
        return {
            "reading": READING,
            "tokenizer": self.tokenizer.to_json(),
            "template": self.template and self.template.about(),
            "template_hash": self.template and self.template.hash,
            "layout": self.layout._asdict(),
            "types": self.types,
            "unscored": self.unscored,
        }


def pretrained(*, source: str = "minilm", pooling: str = "", new_head: bool = False) -> Backbone:
    """Pretrained weights of BERT, RoBERTa, MPNet, GPT-2, LLaMA, Mistral, Qwen2, Qwen3, Gemma 3 (of text) or T5.

    source: "minilm", "mpnet" or "smollm2" (fetched once), a Hugging Face folder, hf://ORG/NAME or
      hf://ORG/NAME@REVISION, or a .gguf file of LLaMA, Mistral, Qwen2, Qwen3, GPT-2 or Gemma 3.
    pooling: mean, first or last; default: what a stored classifier reads, else the mean of encoders, last of others.
    new_head: leave a stored classifier's head out, to train one of another kind.
    """
    found = _without_output(stored(source, head=not new_head))
    unscored = found.unscored if pooling in ("", "last") else None
    return found._replace(pooling=pooling or found.pooling, unscored=unscored)


def _without_output(found: Backbone) -> Backbone:
    """Without output embeddings, for which a reward model has no use."""
    kept = {k: w for k, w in found.weights.items() if not k.startswith("unembed")}
    return found._replace(weights=kept)


def stored(source: str, *, key: str = "model", head: bool = True) -> Backbone:
    """All that a `source` of `pretrained` holds, output embeddings ("unembed") included.

    key: of the config. head: False leaves a classifier's head out.
    """
    path = _path(source, key)
    if path.suffix == ".gguf":
        return _of_gguf(path)
    model, reads = safetensors.load(path, head=head), tokenizer_config.load(path)
    config, tokenizer = model.config, reads.tokenizer
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(f"{path}/tokenizer.json has {tokenizer.vocab_size} tokens, the weights beside it "
                        f"{config.vocab_size}; bring the model's own tokenizer.json")  # fmt: skip
    if model.end is not None and model.end not in tokenizer.encode(["a"], 99)[0][-1:]:
        raise UserError(
            f"{path}: this classifier scores the last end token (eos_token_id {model.end} of config.json), and its "
            "tokenizer.json puts none behind a text; bring the model's own tokenizer.json"
        )
    return Backbone(
        config,
        model.weights,
        tokenizer,
        model.pooling or usual_pooling(config),
        _template(reads.template, reads.bos_token, reads.eos_token, tokenizer),
        model.outputs,
        reads.eos_token,
        reads.eos_ids,
        Layout(pairs=config.kind == "encoder", escaped=reads.escaped, cut_front=reads.cut_front),
        reads.types and config.token_types > 1,
        model.unscored,
        model.dtype,
    )


def _of_gguf(path: Path) -> Backbone:
    read = gguf.load(path)
    tokenizer = Tokenizer.from_json(read.tokenizer)
    template = _template(read.template, read.bos_token, read.eos_token, tokenizer)
    pooling = usual_pooling(read.config)
    return Backbone(read.config, read.weights, tokenizer, pooling, template, stop=read.eos_token)


def usual_pooling(config: Config) -> str:
    """What a head reads where nothing says otherwise."""
    return "mean" if config.kind == "encoder" else "last"


def _template(source: str, bos: str, eos: str, tokenizer: Tokenizer) -> chat.Template | None:
    return chat.Template(source, bos, eos, tokenizer.special_tokens) if source else None


def _path(source: str, key: str) -> Path:
    """The folder or .gguf file that a `source` names, fetched where it is not here.

    Raises: UserError if there is none.
    """
    if source in ("minilm", "mpnet"):
        return assets.folder(source)
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
                        "model.safetensors and tokenizer.json, a .gguf file, 'minilm', 'mpnet', 'smollm2' or "
                        "hf://ORG/NAME")  # fmt: skip
    return path


def tiny_encoder(*, width: int = 32, layers: int = 2, pooling: str = "mean") -> Backbone:
    """A small encoder over bytes, from scratch."""
    tokenizer = Tokenizer.bytes()
    config = presets.encoder(tokenizer.vocab_size, width, layers, 512)
    return Backbone(config, {}, tokenizer, pooling, layout=Layout(pairs=True))


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
    check_reading(workdir, about)
    params = merged(Path(workdir), about)
    template = about["template"] and chat.Template(**about["template"])
    return Backbone(
        Config(**about["transformer"]),
        {k: x for k, x in params.items() if not k.startswith(CRITIC)},
        Tokenizer.from_json(about["tokenizer"]),
        "last",
        template or None,
        stop=about["stop"],
        stop_ids=tuple(about["stop_ids"]),
        layout=Layout(**about["layout"]),
    )


def check_reading(workdir: str | Path, about: Mapping[str, Any]) -> None:
    """Raises: UserError if the run that `about` is of was trained on texts tokenized by other rules than these."""
    if about.get("reading") != READING:
        raise UserError(
            f"{workdir}: was written by an rmjax before 0.2, whose config lines and tokens mean something else, so its "
            "model would be misread. Train it again, or use that version"
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
    if not (
        source.startswith("hf://")
        or source in ("minilm", "mpnet", "smollm2")
        or Path(source).exists()
    ):
        raise UserError(
            f"--policy: there is no {source!r}; name the folder of a finished run of experiments.optimize_policy, a "
            "Hugging Face folder, a .gguf file, 'smollm2' or hf://ORG/NAME"
        )
    found = finished(source) if (Path(source) / "checkpoints").is_dir() else stored(source)
    if found.config.kind == "encoder":
        raise UserError(f"--policy={source!r} is an encoder, which cannot answer")
    if not found.config.tied and "unembed" not in found.weights:
        raise UserError(
            f"--policy={source!r} has no output embeddings (lm_head), so it is no language model; experiments.score "
            "asks reward models"
        )
    return found


def encodes(config: Config) -> bool:
    """Whether an encoder reads the prompts that a decoder answers."""
    return config.kind == "encoder_decoder"


def shares(config: Config, pooling: str) -> bool:
    """Whether texts may keep what they begin with alike once: where no token sees what comes later."""
    return config.kind == "decoder" and pooling != "first"


def reader(
    backbone: Backbone, max_length: int, special_tokens: str = "", *, share: bool | None = None
) -> Reader:
    """How this model reads records.

    special_tokens: how those that a text spells are read, "parse" (as special tokens) or "text"; "": as its folder
      says.
    share: None: where `shares` allows it.
    Raises: UserError on another word.
    """
    return Reader(
        backbone.tokenizer,
        backbone.template,
        max_length,
        shares(backbone.config, backbone.pooling) if share is None else share,
        _laid_out(backbone.layout, special_tokens),
        backbone.types,
        backbone.unscored,
    )


def _laid_out(layout: Layout, special_tokens: str) -> Layout:
    """The layout, with special tokens that a text spells as asked for."""
    if special_tokens not in SPECIAL_TOKENS:
        raise UserError(
            f"special_tokens={special_tokens!r}: must be parse (special tokens that a text spells are special, as "
            "transformers reads them), text (they are text), or empty (as the model's folder says)"
        )
    return layout._replace(escaped=special_tokens == "text") if special_tokens else layout


def reads(found: Backbone, how: Reader, where: str) -> Reads:
    """How a language model reads, and all the tokens that end its answers. where: begins an error.

    Raises: UserError where it names none.
    """
    stop = found.tokenizer.id_of(found.stop)
    if stop is None:
        raise UserError(f"{where} names no token that ends a text (eos_token)")
    others = tuple(i for i in found.stop_ids if i != stop)
    return Reads(how, (stop, *dict.fromkeys(others)), encodes(found.config))


def reader_of(about: Mapping[str, Any], special_tokens: str = "") -> Reader:
    """How the model that a checkpoint's description is of reads records. special_tokens: as of `reader`."""
    layout = _laid_out(Layout(**about["layout"]), special_tokens)
    return Reader(
        Tokenizer.from_json(about["tokenizer"]),
        None if about["template"] is None else chat.Template(**about["template"]),
        about["config"]["max_length"],
        shares(Config(**about["transformer"]), about["pooling"]),
        layout,
        about["types"],
        about["unscored"],
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
