"""What a run prints while it goes on."""

import io

from rich.console import Console

from rmjax.runs import progress


def told(monkeypatch, seconds: float) -> list[str]:
    """The lines in a log file of a run of four steps, each of which took so long, validated at the second and last."""
    out, clock = io.StringIO(), iter(float(i) * seconds for i in range(99))
    monkeypatch.setattr(progress, "CONSOLE", Console(file=out, width=200))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.bar(4, 0) as show:
        for step in range(1, 5):
            show(step, {"train/loss": 1 / step})
            if step % 2 == 0:
                show(step, {"validation/pearson": 0.1 * step})
    return out.getvalue().splitlines()


def test_a_log_file_holds_each_validation_once_beside_the_latest_loss(monkeypatch):
    lines = told(monkeypatch, seconds=1.0)
    assert [line.split("  ")[:3] for line in lines] == [
        ["step 2/4", "loss 0.5000", "validation/pearson 0.2000"],
        ["step 4/4", "loss 0.2500", "validation/pearson 0.4000"],
    ]
    assert lines[-1].endswith("  0 s left")


def test_between_validations_it_is_told_now_and_then(monkeypatch):
    lines = told(monkeypatch, seconds=progress.SECONDS + 1)
    steps = [line.split("  ")[0].removeprefix("step ") for line in lines]
    assert steps == ["1/4", "2/4", "2/4", "3/4", "4/4", "4/4"]
