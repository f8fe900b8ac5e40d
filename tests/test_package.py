"""The wheel holds the whole library, and every module of it can be imported from there alone."""

import subprocess
import sys
import zipfile
from pathlib import Path

HOME = Path(__file__).parents[1]
IMPORT = """
import importlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
for path in sorted(pathlib.Path(sys.argv[1]).glob("rmjax/**/*.py")):
    parts = path.relative_to(sys.argv[1]).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    assert module.__file__.startswith(sys.argv[1]), module.__file__
"""


def test_a_wheel_holds_all_files_and_its_modules_import(tmp_path):
    source = tmp_path / "source"  # a build leaves folders behind
    tracked = ["git", "ls-files", "rmjax", "pyproject.toml", "requirements.txt", "LICENSE"]
    listed = subprocess.run(tracked, cwd=HOME, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((HOME / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("rmjax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        held = {name for name in archive.namelist() if name.startswith("rmjax/")}
        about = next(n for n in archive.namelist() if n.endswith("METADATA"))
        metadata = archive.read(about).decode()
    assert held == {name for name in listed.split() if name.startswith("rmjax/")}
    assert "Requires-Dist: jax==" in metadata and "Provides-Extra: cuda" in metadata
    run = [sys.executable, "-c", IMPORT, str(tmp_path / "installed")]
    subprocess.run(run, cwd=tmp_path, check=True)
