from dataclasses import replace

import pytest

from shortcut_policy.experiment_config import EnvironmentConfig
from shortcut_policy.results import Training
from shortcut_policy.robomimic_run import RobomimicRun, training_of_all

TRAINING = Training(100, 10.0, (0,), 1000, "python scripts/train_robomimic.py", "0123abc", "2 CPU cores", {"modes": 5})
RUN = RobomimicRun("lift", "bc_rnn_gmm", EnvironmentConfig("lift", {"max_steps": 400}), TRAINING)


def of_seed(seed, **changes):
    return replace(RUN, training=replace(TRAINING, seeds=(seed,), **changes))


def test_a_run_is_read_as_it_was_written(tmp_path):
    RUN.write(tmp_path)
    assert RobomimicRun.read(tmp_path) == RUN


def test_incomplete_and_damaged_runs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json is missing"):
        RobomimicRun.read(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        RobomimicRun.read(tmp_path)


def test_seeds_are_put_together():
    together = training_of_all([RUN, of_seed(1, seconds=20.0, command="another")])
    assert together == replace(TRAINING, seeds=(0, 1), seconds=15.0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (RUN, r"a training seed of its own, got \[0, 0\]"),
        (of_seed(1, steps=200), "not trained alike"),
        (of_seed(1, options={"modes": 1}), "not trained alike"),
        (replace(of_seed(1), environment=None), "not trained alike"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        training_of_all([RUN, other])
