"""Hashes of sixteen tiny runs: did a change of the code change what is computed?

    python tests/golden/hash_runs.py before.json        # then change the code
    python tests/golden/hash_runs.py after.json before.json

Each run trains in a new folder. Its line holds the sha256 of the arrays of each checkpoint (last, best, frozen) and of
the metrics in results.json. The runs cover every family of losses, on-policy objectives with and without a critic,
logged data, an environment, one device, pmap and a mesh over four virtual devices, stacked seeds, and a run that is
stopped and resumed. Hashes are equal on one machine with one set of installed versions only.
"""

import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import numpy as np

from configs import policy as policy_configs
from configs import reward as reward_configs
from rmjax.runs import optimize_policy, train_reward
from rmjax.train import checkpoint

ONE = {"parallel": "one_device()", "dtype": "float32"}
PAIRS = {
    "data": "synthetic_pairs(count=80)",
    "batch_size": 8,
    "epochs": 1.0,
    "group_size": 1,
    "validations": 1,
}
SHORT = {"data": "synthetic_ratings(count=120)", "epochs": 1.0, "batch_size": 8, "validations": 1}
POLICY = {"policy": "tiny_decoder(width=16, layers=1)", "data": "synthetic_ratings(count=80)"}
LOGS = {"policy": "tiny_decoder(width=16, layers=1)", "data": "synthetic_logs(count=80)"}
GIVEN = {"policy": "tiny_decoder(width=16, layers=1)", "epochs": 1.0}
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pointwise": ("reward", "tiny", {**SHORT, **ONE, "loss": "mse() + 0.1 * huber(delta=1.0)"}),
    "ordinal, pmap": ("reward", "tiny", {**SHORT, "dtype": "float32", "parallel": "pmap()", "head": "ordinal()",
                                         "loss": "ordinal()"}),
    "pairwise, resumed": ("reward", "tiny_pairs", {**PAIRS, **ONE, "loss": "bradley_terry()", "log_every": 1}),
    "listwise, stacked seeds": ("reward", "tiny_pairs", {**SHORT, **ONE, "seeds": 2}),
    "pairwise, mesh": ("reward", "tiny_pairs", {**PAIRS, "dtype": "float32", "loss": "hinge(margin=1.0)",
                                               "parallel": "mesh(data=2, tensor=2)", "microbatches": 2}),
    "likelihood": ("policy", "tiny", {**POLICY, **ONE, "epochs": 1.0}),
    "mixed": ("policy", "tiny_mixed", {**POLICY, **ONE}),
    "rloo, pmap": ("policy", "tiny_rloo", {**POLICY, "dtype": "float32", "parallel": "pmap()"}),
    "ppo with a critic": ("policy", "tiny_ppo", {**POLICY, **ONE}),
    "q_values": ("policy", "tiny_q_values", {**POLICY, **ONE}),
    "reward_weighted": ("policy", "tiny_reward_weighted", {**POLICY, **ONE}),
    "logged": ("policy", "tiny_logged", {**LOGS, **ONE, "epochs": 1.0}),
    "dpo, mesh": ("policy", "tiny_dpo", {**GIVEN, "dtype": "float32", "parallel": "mesh(data=2, tensor=2)"}),
    "encoder-decoder rloo": ("policy", "tiny_t5_rloo", {**ONE, "data": "synthetic_ratings(count=80)"}),
    "environment, actor-critic": ("policy", "tiny_game", {**ONE, "critic": "value()", "baseline": "none()",
                                                           "loss": "policy_gradient() + 0.5 * squared_value()"}),
    "minimum_risk": ("policy", "tiny_minimum_risk", {**POLICY, **ONE}),
}  # fmt: skip


def digest(tree: Any) -> str:
    """The sha256 of the names, shapes and bytes of all arrays."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def stop_early(home: Path) -> None:
    """Sends SIGTERM once the first metrics are written; the run saves its state and stops, wherever it is."""
    while not (home / "metrics.jsonl").exists() or not (home / "metrics.jsonl").read_text():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def main(out: str, before: str = "") -> None:
    hashes = {}
    for name, (kind, config_name, lines) in RUNS.items():
        configs, run = (
            (reward_configs, train_reward)
            if kind == "reward"
            else (policy_configs, optimize_policy)
        )
        config = configs.get_config(config_name)
        with config.unlocked():
            config.update(lines)
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "run"
            if "resumed" in name:
                threading.Thread(target=stop_early, args=(home,), daemon=True).start()
                assert run.run(config=config, workdir=str(home)) == {"finished": False}
            run.run(config=config, workdir=str(home))
            results = json.loads((home / "results.json").read_text())["metrics"]
            saved = {
                part.name: digest(checkpoint.restore(part))
                for part in sorted((home / "checkpoints").iterdir())
            }
            hashes[name] = {
                **saved,
                "metrics": hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest(),
            }
    Path(out).write_text(json.dumps(hashes, indent=1) + "\n")
    if before:
        old = json.loads(Path(before).read_text())
        for name in [*old, *(hashes.keys() - old.keys())]:
            same = [
                part
                for part in hashes.get(name, {})
                if hashes[name][part] == old.get(name, {}).get(part)
            ]
            print(
                f"{name}: {'equal' if hashes.get(name) == old.get(name) else f'differs, but for {same}'}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
