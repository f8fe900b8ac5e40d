"""Where a step runs: one device, pmap, or a GSPMD mesh. The only file that knows devices.

Legend: R rows of the global batch.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from rmjax.errors import UserError

Spec = Callable[[str], PartitionSpec]  # path of a parameter -> mesh axes


class Layout(NamedTuple):
    """How arrays are placed and functions compiled.

    ways: parts that a batch's rows are split into.
    axis: name of the mapped axis that a step must sum over; None where arrays are global.
    put: (state or parameters, stacked=True) -> the same on the devices; stacked says that with seeds its
      arrays have a leading axis of n.
    put_batch: a host batch -> device arrays. With seeds its arrays have a leading axis of n.
    compile_step: step(state, frozen, batch) -> (state, metrics); the state is donated.
    compile_rows: f(params, frozen, batch) -> tree of arrays [R, ...] -> a function that gives host arrays.
    get: what `put` placed -> the same tree without copies (global arrays, ready to save).
    value: a metric or counter of a step's output -> host array.
    """

    name: str
    ways: int
    axis: str | None
    put: Callable[..., PyTree]
    put_batch: Callable[[Mapping[str, np.ndarray]], PyTree]
    compile_step: Callable[[Callable], Callable]
    compile_rows: Callable[[Callable], Callable]
    get: Callable[[PyTree], PyTree]
    value: Callable[[Any], np.ndarray]


def auto(spec: Spec, seeds: int) -> Layout:
    """`one_device()` where there is one, `pmap()` on several."""
    return one_device(spec, seeds) if jax.local_device_count() == 1 else pmap(spec, seeds)


def one_device(spec: Spec, seeds: int) -> Layout:
    """Everything on the first device."""
    del spec, seeds
    device = jax.local_devices()[0]
    rows = lambda f: _to_host(jax.jit(f))
    return Layout(
        "one_device()",
        1,
        None,
        put=lambda tree, stacked=True: jax.device_put(tree, device),
        put_batch=lambda batch: jax.device_put(dict(batch), device),
        compile_step=lambda step: jax.jit(step, donate_argnums=0),
        compile_rows=rows,
        get=lambda tree: tree,
        value=np.asarray,
    )


def pmap(spec: Spec, seeds: int) -> Layout:
    """Data parallelism: the state on every device, rows split between them."""
    del spec
    devices = jax.local_devices()
    count, row_axis = len(devices), int(seeds > 1)
    mesh = jax.make_mesh((count,), ("devices",), axis_types=(AxisType.Auto,), devices=devices)
    sharding = NamedSharding(mesh, PartitionSpec("devices"))

    def put(tree, stacked=True):
        del stacked
        copy = lambda x: np.broadcast_to(np.asarray(x)[None], (count, *np.shape(x)))
        return jax.tree.map(lambda x: jax.device_put(copy(x), sharding), tree)

    def split(x):
        parts = x.reshape(*x.shape[:row_axis], count, -1, *x.shape[row_axis + 1 :])
        return np.moveaxis(parts, row_axis, 0)

    def put_batch(batch):
        return {
            k: jax.device_put(np.ascontiguousarray(split(x)), sharding) for k, x in batch.items()
        }

    def compile_rows(f):
        mapped = jax.pmap(f)

        def rows(params, frozen, batch):
            def join(x):
                x = np.moveaxis(np.asarray(x), 0, row_axis)
                return x.reshape(*x.shape[:row_axis], -1, *x.shape[row_axis + 2 :])

            return jax.tree.map(join, mapped(params, frozen, batch))

        return rows

    return Layout(
        "pmap()",
        count,
        "devices",
        put=put,
        put_batch=put_batch,
        compile_step=lambda step: jax.pmap(step, axis_name="devices", donate_argnums=0),
        compile_rows=compile_rows,
        get=lambda tree: jax.tree.map(lambda x: x.addressable_data(0)[0], tree),
        value=lambda x: np.asarray(x.addressable_data(0)[0]),
    )


def mesh(spec: Spec, seeds: int, *, data: int = 1, fsdp: int = 1, tensor: int = 1) -> Layout:
    """GSPMD: rows over data x fsdp, parameters over fsdp and tensor as `spec` says.

    Raises: UserError if the product is not the number of devices.
    """
    if data * fsdp * tensor != jax.device_count():
        raise UserError(
            f"config key 'parallel': mesh(data={data}, fsdp={fsdp}, tensor={tensor}) needs "
            f"{data * fsdp * tensor} devices, and there are {jax.device_count()}"
        )
    grid = jax.make_mesh(
        (data, fsdp, tensor), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
    )
    lead = (None,) if seeds > 1 else ()
    everywhere = NamedSharding(grid, PartitionSpec())

    def sharding(path, x, stacked=True):
        # The path of a parameter is the last dict key on the way to it, in the optimizer's state too.
        keys = [str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey)]
        axes = spec(keys[-1]) if keys else PartitionSpec()
        first = lead if stacked else ()
        fits = len(first) + len(axes) <= np.ndim(x)  # factored moments and counters are small
        chosen = NamedSharding(grid, PartitionSpec(*first, *axes)) if keys and fits else everywhere
        _check_divides(chosen, x, keys)
        return chosen

    def put(tree, stacked=True):
        place = lambda path, x: jax.device_put(x, sharding(path, x, stacked))
        return jax.tree_util.tree_map_with_path(place, tree)

    def compile_step(step):
        def pinned(state, frozen, batch):
            new, means = step(state, frozen, batch)
            pin = lambda p, x: jax.lax.with_sharding_constraint(x, sharding(p, x))
            return jax.tree_util.tree_map_with_path(pin, new), means

        return jax.jit(pinned, donate_argnums=0)

    rows = NamedSharding(grid, PartitionSpec(*lead, ("data", "fsdp")))
    return Layout(
        f"mesh(data={data}, fsdp={fsdp}, tensor={tensor})",
        data * fsdp,
        None,
        put=put,
        put_batch=lambda batch: {k: jax.device_put(x, rows) for k, x in batch.items()},
        compile_step=compile_step,
        compile_rows=lambda f: _to_host(jax.jit(f)),
        get=lambda tree: tree,
        value=np.asarray,
    )


LAYOUTS = {f.__name__: f for f in (auto, one_device, pmap, mesh)}


def stack_seeds(step: Callable, *, unroll: bool) -> Callable:
    """A step over n stacked states and batches; `frozen` is shared.

    unroll: n copies of the program, faster for wide models on CPU; else one vmapped program.
    """
    if not unroll:
        return jax.vmap(step, in_axes=(0, None, 0))

    def steps(state, frozen, batch):
        count = jax.tree.leaves(batch)[0].shape[0]
        take = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
        done = [step(take(state, i), frozen, take(batch, i)) for i in range(count)]
        return jax.tree.map(lambda *x: jnp.stack(x), *done)

    return steps


def _to_host(compiled: Callable) -> Callable:
    return lambda *inputs: jax.tree.map(np.asarray, compiled(*inputs))


def _check_divides(sharding: NamedSharding, x: Any, keys: list[str]) -> None:
    try:
        sharding.shard_shape(np.shape(x))
    except ValueError as error:
        raise UserError(
            f"config key 'parallel': {keys[-1]} of shape {np.shape(x)} does not divide over the mesh axes "
            f"{sharding.spec} of sizes {dict(sharding.mesh.shape)}"
        ) from error
