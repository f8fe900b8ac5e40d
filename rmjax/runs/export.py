"""The model of a finished run as a Hugging Face folder that transformers loads and scores alike."""

import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from rmjax import lookup
from rmjax.data.encode import Reader
from rmjax.data.tokenizer import PADDING
from rmjax.errors import UserError
from rmjax.inference import backbones, normalization, run_folder
from rmjax.models import export, lora
from rmjax.models.layers import Adapter
from rmjax.models.transformer import Config
from rmjax.runs import model_card, progress
from rmjax.train import checkpoint


def run(*, workdir: str, output: str, seed: int = 0, peft: bool = False) -> dict[str, Any]:
    """Writes config.json, model.safetensors and the tokenizer of a run's best model, adapters merged.

    Args:
      workdir: folder of a finished run: of a reward model, or of a language model, which becomes a causal one or T5's.
      output: folder to write; must not exist.
      seed: which of the seeds of a run with several, counted from 0.
      peft: the adapters and the head alone, unmerged, as a PEFT folder.

    Returns: {"output": the folder, "remote_code": whether transformers needs trust_remote_code for it}.
    Raises: UserError on what the user can mend.
    """
    home, target = Path(workdir), Path(output)
    if target.exists():
        raise UserError(f"{target} exists; name a new folder with --output")
    results = run_folder.read_json(home / "results.json")
    about = checkpoint.about(home / "checkpoints/best")
    if "stop" in about:
        if seed or peft:
            raise UserError(
                f"{home} is a language model's run, exported whole; leave --seed and --peft away"
            )
        return _language_model(home, target, about)
    params = _parameters(home, about, seed)
    backbones.check_reading(home, about)
    head, labels = _head(home, about, params, seed)
    reader = backbones.reader_of(about)
    adapter = lookup.bind(about["config"]["adapter"], backbones.ADAPTERS, key="adapter")()
    if peft and adapter is None:
        raise UserError(f"{home} was trained without an adapter; leave --peft away")
    try:
        if peft:
            return _peft(target, about, params, head, adapter, reader)
        if adapter is not None:
            params = _arrays(lora.merge({k: jnp.asarray(x) for k, x in params.items()}, adapter))
        made = export.reward_model(
            Config(**about["transformer"]),
            params,
            head,
            pooling=about["pooling"],
            pad_id=pad_id(reader),
            unscored=reader.unscored,
            labels=labels,
        )
    except ValueError as error:
        raise UserError(f"{home}: cannot be exported: {error}") from error
    low = about["scale"][0] if about["scale"] else 0
    card = model_card.reward_model(
        home,
        about,
        results,
        encoder=reader.layout.pairs,
        code=made.code,
        values=tuple(float(low + i) for i in range(len(labels))),
    )
    files = {"model": made.arrays, "config": made.config}
    write(target, files, reader, made.config["pad_token_id"], code=made.code, card=card)
    needs = ", trust_remote_code=True" if made.code else ""
    for note in _notes(about, reader):
        progress.note(note)
    progress.CONSOLE.print(
        f"Done: AutoModelForSequenceClassification.from_pretrained({str(target)!r}{needs})"
    )
    return {"output": str(target), "remote_code": made.code}


def _notes(about: dict[str, Any], reader: Reader) -> list[str]:
    """What in other hands is not as it was in the run."""
    notes = [] if about["pooling"] != "last" else [reader.rule()]
    if about["dtype"] != "float32":
        notes.append(
            f"the run computes scores in {about['dtype']}; the folder holds float32 weights, whose scores differ in "
            "the third digit"
        )
    if reader.layout.escaped:
        notes.append(
            "special tokens that a text spells are text; tokenizer_config.json says so (split_special_tokens)"
        )
    if reader.template is not None and "strftime_now" in reader.template.pinned_source:
        notes.append(
            "the chat template renders the date of the day in a form that cannot be written into it; the run's is "
            f"{reader.template.date}"
        )
    return notes


def _language_model(home: Path, target: Path, about: dict[str, Any]) -> dict[str, Any]:
    found = backbones.finished(str(home))
    # Whoever generates has a prompt tokenized alone; an encoder reads it as a whole text.
    tokenizer = (
        found.tokenizer if backbones.encodes(found.config) else found.tokenizer.for_prompts()
    )
    reader = backbones.reader(found, about["config"]["max_length"], share=False)
    reader = reader._replace(tokenizer=tokenizer)
    pad = found.tokenizer.pad_id
    try:
        made = export.language_model(found.config, found.weights)
    except ValueError as error:
        raise UserError(f"{home}: cannot be exported: {error}") from error
    stop, *others = backbones.reads(found, reader, str(home)).stop_ids
    ends = {"eos_token_id": [stop, *others] if others else stop, "pad_token_id": pad}
    write(
        target, {"model": made.arrays, "config": made.config | ends}, reader, pad, stop=found.stop
    )
    kind = "Seq2Seq" if backbones.encodes(found.config) else "Causal"
    progress.CONSOLE.print(f"Done: AutoModelFor{kind}LM.from_pretrained({str(target)!r})")
    return {"output": str(target), "remote_code": False}


def write(
    target: Path,
    files: dict[str, Any],
    reader: Reader,
    pad_id: int,
    *,
    code: bool = False,
    stop: str = "",
    card: str = "",
) -> None:
    """The folder, whole or not at all.

    files: NAME.safetensors of arrays by name, NAME.json of the others. code: whether the model needs its own.
    stop: the token that ends a language model's texts. card: what README.md says.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in files.items():
        if all(isinstance(x, np.ndarray) for x in content.values()):
            save_file(content, partial / f"{name}.safetensors", metadata={"format": "pt"})
        else:
            run_folder.write_json(partial / f"{name}.json", content)
    run_folder.write_text(partial / "tokenizer.json", reader.tokenizer.to_json())
    ends = {"eos_token": stop} if stop else {}
    run_folder.write_json(
        partial / "tokenizer_config.json", _tokenizer_config(reader, pad_id) | ends
    )
    if card:
        run_folder.write_text(partial / "README.md", card)
    if code:
        shutil.copy(export.CODE, partial / "modeling_rmjax.py")
    partial.rename(target)


def _peft(
    target: Path,
    about: dict[str, Any],
    params: dict[str, np.ndarray],
    head: export.Head,
    adapter: Adapter,
    reader: Reader,
) -> dict[str, Any]:
    pad = pad_id(reader)
    named = lookup.bind(about["config"]["model"], backbones.MODELS, key="model")
    base = named.keywords.get("source", "")  # pyright: ignore[reportFunctionMemberAccess] (a partial)
    shape, pooling = Config(**about["transformer"]), about["pooling"]
    config, arrays = export.peft(
        shape, params, head, adapter, pooling=pooling, pad_id=pad, base=base
    )
    assert pad is not None  # else `export.peft` refuses
    write(target, {"adapter_model": arrays, "adapter_config": config}, reader, pad)
    progress.CONSOLE.print(
        f"Done: PeftModel.from_pretrained(base, {str(target)!r}), where base is {base!r} as "
        f"AutoModelForSequenceClassification with num_labels=1 and pad_token_id={pad}"
    )
    return {"output": str(target), "remote_code": False}


def _arrays(params: dict[str, Any]) -> dict[str, np.ndarray]:
    return {k: np.asarray(v, np.float32) for k, v in params.items()}


def _parameters(home: Path, about: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """One seed's parameters by path, those held fixed included."""
    seeds = about["config"]["seeds"]
    if not 0 <= seed < seeds:
        raise UserError(f"--seed={seed}: the run has seeds 0 to {seeds - 1}")
    params = checkpoint.restore(home / "checkpoints/best")["params"]
    if seeds > 1:
        params = {k: v[seed] for k, v in params.items()}
    held = home / "checkpoints/frozen"
    if checkpoint.latest(held) is not None:
        params |= checkpoint.restore(held)["frozen"]
    return _arrays(params)


def _head(
    home: Path, about: dict[str, Any], params: dict[str, np.ndarray], seed: int
) -> tuple[export.Head, tuple[str, ...]]:
    """The head, normalization folded in, and the names of its outputs."""
    config = about["config"]
    name = lookup.name_of(config["head"], key="head")
    if name not in ("scalar", "classes"):
        raise UserError(
            f"{home}: a head {config['head']} cannot be exported; scalar() and classes() can"
        )
    linear = lambda at: export.Linear(params[f"head/{at}/kernel"], params[f"head/{at}/bias"])
    kernel, bias = linear("score" if name == "scalar" else "logits")
    dense = linear("dense") if "head/dense/kernel" in params else None
    if not lookup.off(config["normalize"], key="normalize"):
        if name != "scalar":
            raise UserError(
                f"{home}: normalize={config['normalize']!r} does not fold into the head {name}()"
            )
        kept = normalization.load(home)
        kernel, bias = kernel / kept.scale[seed], (bias - kept.mean[seed]) / kept.scale[seed]
    low = about["scale"][0] if about["scale"] else 0
    labels = tuple(str(low + i) for i in range(kernel.shape[1])) if name == "classes" else ()
    if name == "classes" and about.get("classes"):
        labels = tuple(about["classes"])
    return export.Head(export.Linear(kernel, bias), dense), labels


def pad_id(reader: Reader) -> int | None:
    """The token that texts are scored before, else one that stands in no text, so that padding can be told from it.

    None if there is none.
    """
    if reader.unscored is not None:
        return reader.unscored
    tokenizer, template = reader.tokenizer, reader.template
    if tokenizer.token(tokenizer.pad_id) in PADDING:
        return tokenizer.pad_id
    framing = tokenizer.encode(["a"], 8)[0].tolist()
    about = {} if template is None else template.about()
    spelled = "".join(str(about.get(name, "")) for name in ("source", "bos_token", "eos_token"))
    free = (
        i for i, token in tokenizer.special.items() if i not in framing and token not in spelled
    )
    return next(free, None)


def _tokenizer_config(reader: Reader, pad_id: int) -> dict[str, Any]:
    known = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": reader.max_length,
        "padding_side": "right",  # as transformers' learned positions need it
        "pad_token": reader.tokenizer.token(pad_id),
        "truncation_side": "left" if reader.layout.cut_front else "right",
    }
    if reader.types:
        known["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if reader.layout.escaped:
        known["split_special_tokens"] = True
    if reader.template is None:
        return known
    about = reader.template.about()
    named = {k: about[k] for k in ("bos_token", "eos_token") if about[k]}
    return known | named | {"chat_template": reader.template.pinned_source}
