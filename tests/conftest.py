"""Every test sees 8 CPU devices, checked shapes and no silent broadcasting."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes most of the suite's time: unoptimized programs compile 10 times as fast, and those compiled before
# are read from a cache. By environment, so that commands which tests start have it too.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false",
)
# Threads of XLA's pool, else one a device: where a program has independent collectives (stacked seeds, unrolled),
# devices that wait in one would leave none to start the other, and all wait for ever.
os.environ.setdefault("NPROC", "64")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/rmjax/compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("rmjax", "beartype.beartype").__enter__()

# Begun last, each of these would run alone at the end.
LONG = (
    "test_resume.py",
    "test_policy_runs.py",
    "test_step.py",
    "test_export.py",
    "test_evolution_runs.py",
    "test_encoder_decoder_runs.py",
)


def pytest_collection_modifyitems(items):
    """Puts the tests of long files first; the others keep their order."""
    items.sort(key=lambda item: item.path.name not in LONG)
