"""A run of a policy that SIGTERM stops at a rollout, and the same command again."""

import os
import signal

from rmjax.rl import rollout
from rmjax.runs import optimize_policy
from rmjax.train import checkpoint


def stopped_and_gone_on(lines, home, monkeypatch, *, at):
    """What the second command gives of a run that is stopped while rollout `at` is drawn, and saved behind it."""
    item = rollout.Plan.item

    def stop(self, step):
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return item(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(rollout.Plan, "item", stop)
        assert optimize_policy.run(config=lines, workdir=str(home)) == {"finished": False}
    assert checkpoint.latest(home / "checkpoints/last") == at + 1
    return optimize_policy.run(config=lines, workdir=str(home))
