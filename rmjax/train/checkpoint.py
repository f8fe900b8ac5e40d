"""Orbax checkpoints: the last state to go on from, and the best parameters to use; kept apart.

One manager for both would take the best step for the latest one, and a resumed run would start there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree


def _manager(folder: Path) -> ocp.CheckpointManager:
    # Saves are synchronous: states are donated, and on CPU a background save could read reused memory.
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder.absolute(), options=options)


def save(folder: Path, step: int, tree: PyTree, about: Mapping[str, Any]) -> None:
    """Saves arrays and a JSON description atomically, then removes the older checkpoint."""
    with _manager(folder) as manager:
        if step in manager.all_steps():
            return  # a resumed run came by here again; it is the same bit for bit
        items = {"state": ocp.args.StandardSave(tree), "about": ocp.args.JsonSave(dict(about))}
        manager.save(step, args=ocp.args.Composite(**items))


def latest(folder: Path) -> int | None:
    """The step of the checkpoint in `folder`, None if there is none."""
    if not folder.is_dir():
        return None
    with _manager(folder) as manager:
        return manager.latest_step()


def about(folder: Path) -> dict[str, Any]:
    """The JSON description that was saved with the checkpoint in `folder`."""
    with _manager(folder) as manager:
        args = ocp.args.Composite(about=ocp.args.JsonRestore())
        return dict(manager.restore(manager.latest_step(), args=args)["about"])


def restore(folder: Path, like: PyTree | None = None) -> PyTree:
    """The tree of the checkpoint in `folder`, on the host or placed as the arrays of `like` are.

    Raises: ValueError from orbax where `like` has other names or shapes.
    """
    shapes = None if like is None else jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with _manager(folder) as manager:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        return manager.restore(manager.latest_step(), args=args)["state"]
