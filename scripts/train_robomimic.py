"""Train robomimic's BC-RNN-GMM with robomimic's own trainer, to be compared with ours on the same data:

    python scripts/train_robomimic.py task=lift data.path=... algorithm=bc_rnn_gmm steps=200000 seed=0

`--help` lists all values. The trainer cannot resume; it rolls nothing out, scripts/eval_robomimic.py does.
"""

import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
from hydra_command import command

from shortcut_policy.config import from_mapping
from shortcut_policy.data.robomimic_hdf5 import observation_array, open_robomimic
from shortcut_policy.experiment import Demonstrations, make_environment, read_demonstrations, recorded_environment
from shortcut_policy.experiment_config import DataConfig, EnvironmentConfig
from shortcut_policy.provenance import current_command, current_commit, describe_hardware
from shortcut_policy.results import Training
from shortcut_policy.robomimic_run import RobomimicRun
from shortcut_policy.training.distributed import join_processes
from shortcut_policy.training.interruption import TrainingInterrupted
from shortcut_policy.training.loop import TrainingDiverged


@dataclass(frozen=True)
class Algorithm:
    """The algorithm and its training; see `configs/train_robomimic.yaml`."""

    algorithm: Literal["bc_rnn_gmm"]
    steps: int
    epoch_steps: int
    batch_size: int
    learning_rate: float
    rnn_horizon: int
    rnn_hidden_dim: int
    rnn_layers: int
    gmm_modes: int
    gmm_min_std: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("epoch_steps", "batch_size", "rnn_horizon", "rnn_hidden_dim", "rnn_layers", "gmm_modes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.gmm_min_std <= 0:
            raise ValueError(f"gmm_min_std must be positive, got {self.gmm_min_std}")
        if self.steps < 1 or self.steps % self.epoch_steps:
            raise ValueError(f"steps={self.steps} must be a positive multiple of epoch_steps={self.epoch_steps}")


def robomimic_data(values: Mapping[str, Any]) -> DataConfig:
    """The task's data as robomimic reads them: `actions` (deltas, where the task takes poses), and no own hold-out.

    Raises:
        ValueError: an observation of the task is not one of the file as it stands there, or symmetries are asked for.
    """
    codec = dict(values.get("action_codec", {}))
    if codec.get("representation") == "absolute_pose":
        codec["representation"] = "delta_pose"
    changed = {"action": {"array": "actions"}, "action_codec": codec, "valid_filter_key": None, "valid_fraction": 0.0}
    config = from_mapping(DataConfig, {**values, **changed}, "data.")
    if config.format != "robomimic":
        raise ValueError(
            f"data.format={config.format} is not what robomimic reads: choose data of data.format=robomimic"
        )
    if config.symmetries:
        raise ValueError("data.symmetries cannot be used: robomimic reads the file as it stands")
    for key, source in config.observations.items():
        plain = source.columns is None and source.transform == "none"
        if not plain or observation_array(source.named(key)) != f"obs/{key}":
            raise ValueError(
                f"data.observations.{key} is made from {source}, but robomimic reads obs/{key} as it stands"
            )
    return config


def check_data(config: DataConfig, data: Demonstrations, batch_size: int) -> None:
    """Refuse what our reader takes and robomimic's stumbles over.

    Raises:
        ValueError: attributes are missing, observations are images, or there are too few steps.
    """
    with open_robomimic(config.path) as file:
        if "env_args" not in file.attributes:
            raise ValueError(f"{config.path} has no env_args, which robomimic needs: convert it by convert_demos.py")
        for demo in file.demos(config.filter_key):
            if file.declared_steps(demo) is None:
                raise ValueError(
                    f"{demo} of {config.path} has no num_samples, which robomimic needs: add the attribute"
                )
    for key, array in data.training.observations.items():
        if array.ndim != 2:
            raise ValueError(f"observation {key!r} holds images, but this trains on states: leave it out")
    actions = data.training.actions
    if len(actions) < batch_size:
        raise ValueError(f"{config.path} has {len(actions)} steps, too few for batch_size={batch_size}: lower it")
    largest = np.abs(actions).max()
    if largest > 1:
        print(f"note: actions reach {largest:.2f}, but the means of robomimic's GMM stay within [-1, 1]")


def robomimic_config(algorithm: Algorithm, data: DataConfig, output: Path) -> Any:
    """robomimic's configuration of the paper's low-dimensional BC-RNN-GMM, without rollouts, and one checkpoint."""
    from robomimic.config import config_factory

    config = config_factory("bc")
    epochs = algorithm.steps // algorithm.epoch_steps
    with config.values_unlocked():
        config.experiment.name = "robomimic"
        config.experiment.logging.terminal_output_to_txt = False  # it would replace sys.stdout for good
        config.experiment.rollout.enabled = False
        config.experiment.render_video = False
        config.experiment.save.every_n_epochs = None
        config.experiment.save.on_best_rollout_success_rate = False
        config.experiment.save.epochs = [epochs]
        config.experiment.epoch_every_n_steps = algorithm.epoch_steps
        config.train.data = str(Path(data.path).resolve())
        config.train.output_dir = str(output.resolve())  # a relative one would be relative to robomimic's sources
        config.train.num_epochs = epochs
        config.train.batch_size = algorithm.batch_size
        config.train.seq_length = algorithm.rnn_horizon
        config.train.seed = algorithm.seed
        config.train.hdf5_filter_key = data.filter_key
        config.observation.modalities.obs.low_dim = list(data.observations)
        config.algo.optim_params.policy.learning_rate.initial = algorithm.learning_rate
        config.algo.actor_layer_dims = ()
        config.algo.gmm.enabled = True
        config.algo.gmm.num_modes = algorithm.gmm_modes
        config.algo.gmm.min_std = algorithm.gmm_min_std
        config.algo.rnn.enabled = True
        config.algo.rnn.horizon = algorithm.rnn_horizon
        config.algo.rnn.hidden_dim = algorithm.rnn_hidden_dim
        config.algo.rnn.num_layers = algorithm.rnn_layers
    config.lock()
    return config


def run_trainer(algorithm: Algorithm, data: DataConfig, output: Path, device: torch.device) -> None:
    """Train, and leave the checkpoint as output/model.pth.

    Raises:
        TrainingInterrupted: Ctrl-C.
        TrainingDiverged: the network's output is not finite any more.
    """
    from robomimic.scripts.train import train

    # by which a NaN is found: torch.compile, if it was used in this process, has switched it off
    torch.distributions.Distribution.set_default_validate_args(True)
    try:
        # robomimic sets two threads of its own; with OMP_THREAD_LIMIT=1 the LSTM would then be computed by halves
        with mock.patch.object(torch, "set_num_threads"):
            train(robomimic_config(algorithm, data, output), device)
    except KeyboardInterrupt:
        message = f"interrupted: robomimic cannot resume, so remove {output} and start again"
        raise TrainingInterrupted(message, signal.SIGINT) from None
    except ValueError as error:
        if "found invalid values" not in str(error):  # of torch's distributions, with the whole tensor
            raise
        raise TrainingDiverged(
            f"the policy's output became NaN, and robomimic clips no gradient: remove {output} and start again with a "
            f"lower learning_rate than {algorithm.learning_rate}"
        ) from None
    (checkpoint,) = (output / "robomimic").glob("*/models/*.pth")
    checkpoint.rename(output / "model.pth")


@command("train_robomimic")
def main(values: dict[str, Any]) -> None:
    """Check everything first: robomimic asks before it writes over a folder, and fails late."""
    from shortcut_policy.robomimic_adapter import load_robomimic_policy  # says so where robomimic is missing

    algorithm = from_mapping(Algorithm, {field.name: values[field.name] for field in fields(Algorithm)})
    config = robomimic_data(values["data"])
    output = Path(values["output"] or f"outputs/{values['task_name']}_{algorithm.algorithm}_{algorithm.seed}")
    if output.exists() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty: choose another output=, or remove that folder")
    data = read_demonstrations(config)
    check_data(config, data, algorithm.batch_size)
    environment = None
    if values.get("environment") is not None:
        environment = from_mapping(EnvironmentConfig, values["environment"], "environment.")
        environment = recorded_environment(environment, data)
        make_environment(environment)  # what does not fit is said before the training
    commit = current_commit()  # now: the sources may change while the training runs
    with join_processes(values["device"]) as processes:
        started = time.perf_counter()
        run_trainer(algorithm, config, output, processes.device)
        seconds = time.perf_counter() - started
    options = asdict(algorithm)
    training = Training(
        steps=options.pop("steps"),
        seconds=round(seconds, 1),
        seeds=(options.pop("seed"),),
        parameters=sum(p.numel() for p in load_robomimic_policy(output / "model.pth").policy.nets.parameters()),
        command=current_command(),
        commit=commit,
        hardware=describe_hardware(processes.device),
        options={**options, "observations": list(config.observations), "filter_key": config.filter_key},
    )
    RobomimicRun(values["task_name"], algorithm.algorithm, environment, training).write(output)
    print(f"trained {training.steps} steps in {seconds / 60:.1f} min: {output / 'model.pth'}")


if __name__ == "__main__":
    main()
