"""A finished run's folder -> report.html: one self-contained page, made from the folder's files alone."""

from pathlib import Path

from rmjax.report import page, policy, reward

PAGES = {"reward": reward.fill, "policy": policy.fill}  # by the experiment that results.json names


def write(home: Path) -> None:
    """Writes report.html into the folder of a finished run, whole or not at all.

    Raises: UserError naming the file, where one is missing or broken.
    """
    results = page.read(home, "results.json")[0]
    page.write(home, PAGES[results["experiment"]](home, results))
