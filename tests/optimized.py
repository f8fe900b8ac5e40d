"""Code in a process that compiles as users have it: tests switch optimizations off."""

import os
import subprocess
import sys
from pathlib import Path


def run(code):
    """What it prints."""
    changed = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k not in changed},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
