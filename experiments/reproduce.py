"""Prints a paper's table beside our own figures."""

from rmjax import launch
from rmjax.runs import reproduce

if __name__ == "__main__":
    launch.main(reproduce.run)
