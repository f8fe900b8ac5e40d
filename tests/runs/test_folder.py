"""What a run folder remembers of the machine it began on."""

import json

from rmjax.inference import run_folder
from tests.runs.conftest import config


def test_another_machine_is_noticed(tmp_path):
    run_folder.begin(tmp_path, config(), {"train": "a"}, {"dtype": "float32"})
    assert run_folder.changes(tmp_path) == []
    found = json.loads((tmp_path / "environment.json").read_text())
    found["versions"]["jax"], found["cores"] = "0.9.0", 96
    (tmp_path / "environment.json").write_text(json.dumps(found))
    versions = run_folder.environment()
    assert run_folder.changes(tmp_path) == [
        f"jax 0.9.0 there, {versions['versions']['jax']} now",
        f"cores 96 there, {versions['cores']} now",
    ]
