"""Importing everything, in a fresh process: no foreign framework, and no device started."""

import json
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[1]
IMPORT_ALL = """
import importlib, json, pathlib, sys
files = [p for root in ("rmjax", "experiments", "configs") for p in pathlib.Path(root).rglob("*.py")]
names = [".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in files]
for name in names:
    importlib.import_module(name)
print(json.dumps({"names": names, "modules": sorted(sys.modules)}))
"""


def test_no_foreign_framework_and_no_device_at_import():
    # Starting any backend fails here: whoever imports the library still chooses devices and flags.
    environment = {**os.environ, "JAX_PLATFORMS": "none_may_start"}
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert {"rmjax.runs.train_reward", "experiments.train_reward", "configs.reward"} <= {
        *found["names"]
    }
    foreign = {"torch", "tensorflow", "transformers", "sklearn", "hypothesis", "beartype", "pytest"}
    assert not foreign & set(found["modules"])
