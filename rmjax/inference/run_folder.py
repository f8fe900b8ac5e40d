"""The run folder: written atomically, readable without this library, refused to another run."""

import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rmjax.errors import UserError

# What may differ when a run is taken up again: nothing that a number depends on.
FREE = ("log_every", "save_every")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON; NaN and infinities are refused, so nobody reads them."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines."""
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; none where there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n") if line]  # a line may hold U+2028


def write_array(path: Path, values: np.ndarray) -> None:
    """Writes a .npy file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, values)
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file of a run folder.

    Raises: UserError naming the file, where it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; is {path.parent} the folder of a run?") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def finished(workdir: Path) -> dict[str, Any] | None:
    """The results of a finished run, else None."""
    path = workdir / "results.json"
    return read_json(path) if path.exists() else None


def check_config(workdir: Path, config: ConfigDict) -> None:
    """Raises: UserError if the folder holds a run of another config, or files that are no run."""
    path = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file; name a folder with --workdir")
    if not path.exists():
        # A .partial file is what a kill left of the very first write.
        if workdir.is_dir() and any(p.suffix != ".partial" for p in workdir.iterdir()):
            raise UserError(
                f"{workdir} is not empty and holds no config.json; name a new folder with --workdir"
            )
        return
    before, now = read_json(path), json.loads(config.to_json())
    keys = sorted(k for k in {*before, *now} if before.get(k) != now.get(k) and k not in FREE)
    if keys:
        changes = "; ".join(f"{k}: {before.get(k)!r} there, {now.get(k)!r} now" for k in keys)
        raise UserError(f"{workdir} holds a run with another config ({changes}); name a new folder with --workdir, "
                        "or give the config it has")  # fmt: skip


def check_data(workdir: Path, hashes: Mapping[str, str]) -> None:
    """Raises: UserError if the data changed since the run in this folder began."""
    path = workdir / "environment.json"
    before = read_json(path)["data"] if path.exists() else hashes
    changed = sorted(k for k in hashes if hashes[k] != before.get(k))
    if changed:
        raise UserError(f"{workdir}: the {', '.join(changed)} data changed since this run began; name a new "
                        "folder with --workdir, or bring back the data")  # fmt: skip


def begin(
    workdir: Path, config: ConfigDict, hashes: Mapping[str, str], choices: Mapping[str, Any]
) -> None:
    """Writes config.json and environment.json; a resumed run keeps its first environment and choices.

    Raises: UserError if the folder cannot be written to.
    """
    try:
        write_json(workdir / "config.json", json.loads(config.to_json()))
    except OSError as error:
        raise UserError(f"{workdir} cannot be written to: {error.strerror}; name another folder with --workdir"
                        ) from error  # fmt: skip
    if not (workdir / "environment.json").exists():
        write_json(
            workdir / "environment.json", environment() | {"data": hashes, "choices": choices}
        )


def choices(workdir: Path) -> dict[str, Any] | None:
    """What the run in this folder chose by measurement when it began, None before that."""
    path = workdir / "environment.json"
    return read_json(path)["choices"] if path.exists() else None


def changes(workdir: Path) -> list[str]:
    """What is not as it was when the run in this folder began; only if nothing is, resuming is bit for bit."""

    def flat(found: Mapping[str, Any]) -> dict[str, Any]:
        return found["versions"] | {k: found[k] for k in ("devices", "cores", "revision")}

    before, now = flat(read_json(workdir / "environment.json")), flat(environment())
    return [f"{k} {before.get(k)} there, {now[k]} now" for k in now if before.get(k) != now[k]]


def environment() -> dict[str, Any]:
    """Versions, devices, revision and command line."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")
    return {
        "versions": {"python": sys.version.split()[0]}
        | {n: importlib.metadata.version(n) for n in names},
        "devices": [str(d) for d in jax.devices()],
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "revision": _revision(),
        "command": command(),
    }


def command() -> str:
    """The command line that started this process, to be typed again."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    start = ["python", "-m", main.name] if main else ["python", sys.argv[0]]
    return shlex.join([*start, *sys.argv[1:]])


def _revision() -> str:
    try:
        where = Path(__file__).parent
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=where,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git)"
