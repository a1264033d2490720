"""Evaluate what scripts/train_robomimic.py trained as ours is: same environments, same seeds, same statistics.

    python scripts/eval_robomimic.py checkpoint=outputs/lift_bc_rnn_gmm_0 episodes=50

Writes result.json and prints the table.
"""

import hashlib
import importlib.metadata
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra_command import command
from tqdm import tqdm

from shortcut_policy.config import from_mapping
from shortcut_policy.evaluation import Agent, evaluate_in
from shortcut_policy.experiment import SLOTS, open_rollouts
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.result_tables import markdown_table
from shortcut_policy.results import EvaluationSettings, Result, make_row, result_paths, write_result
from shortcut_policy.robomimic_run import RobomimicRun, training_of_all
from shortcut_policy.training.distributed import join_processes

if TYPE_CHECKING:
    from robomimic.algo import RolloutPolicy


@dataclass(frozen=True)
class EvalConfig:
    """The values of `configs/eval_robomimic.yaml`."""

    checkpoint: tuple[str, ...]
    episodes: int
    first_seed: int
    num_envs: int
    workers: int | None
    latency_calls: int
    output: str | None
    result: str | None
    overwrite: bool
    device: str

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ValueError("checkpoint=[] evaluates nothing: give the folder of a training")
        for name in ("episodes", "num_envs", "latency_calls"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def acting_latency_ms(agent: Agent, policy: "RolloutPolicy", calls: int, warm_up: int = 10) -> np.ndarray:
    """Milliseconds from an observation in host memory to its action, for one robot: (calls,).

    The hidden state stays on the device, as in a rollout.
    """
    rng = np.random.default_rng(0)
    shapes = policy.policy.obs_shapes
    agent.reset([0])
    times = np.empty(warm_up + calls)
    for call in range(warm_up + calls):
        observation = {key: rng.standard_normal((1, *shape), np.float32) for key, shape in shapes.items()}
        started = time.perf_counter()
        agent.act(observation)
        times[call] = time.perf_counter() - started
    return 1e3 * times[warm_up:]


@command("eval_robomimic")
def main(values: dict[str, Any]) -> None:
    """Roll out every checkpoint."""
    from shortcut_policy.robomimic_adapter import RobomimicAgent, load_robomimic_policy  # says so where it is missing

    if isinstance(values["checkpoint"], str):
        values["checkpoint"] = [values["checkpoint"]]
    config = from_mapping(EvalConfig, values)
    folders = [Path(path) for path in config.checkpoint]
    runs = [RobomimicRun.read(folder) for folder in folders]
    training = training_of_all(runs)
    run = runs[0]
    if run.environment is None:
        raise ValueError(f"{folders[0]} was trained for a task without an environment: there is nothing to evaluate")
    environment = run.environment if config.workers is None else replace(run.environment, workers=config.workers)
    output = Path(config.output) if config.output else folders[0] / "evaluation"
    targets = result_paths(output, config.result, config.overwrite)

    files = [folder / "model.pth" for folder in folders]
    with join_processes(config.device) as processes:
        policies = [load_robomimic_policy(file, processes.device) for file in files]
        latency_ms = acting_latency_ms(RobomimicAgent(policies[0], 1), policies[0], config.latency_calls)
        with (
            open_rollouts(environment, config.episodes, config.num_envs) as environments,
            tqdm(total=config.episodes * len(policies), desc="episodes") as bar,
        ):
            evaluations = [  # as shortcut_policy.experiment.roll_out evaluates our policies
                evaluate_in(
                    environments,
                    RobomimicAgent(policy, SLOTS),
                    episodes=config.episodes,
                    slots=SLOTS,
                    first_seed=config.first_seed,
                    progress=lambda episode: bar.update(),
                )
                for policy in policies
            ]
    hashes = " ".join(hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files)
    result = Result(
        name=f"{run.task}_{run.algorithm}",
        task=run.task,
        objective=run.algorithm,
        network=f"lstm {training.options['rnn_layers']}x{training.options['rnn_hidden_dim']}",
        command=current_command(),
        commit=current_commit(),
        hardware=describe_hardware(processes.device),
        versions={**installed_versions(), "robomimic": importlib.metadata.version("robomimic")},
        training=training,
        evaluation=EvaluationSettings(config.episodes, config.first_seed, "max reward", f"last, sha256 {hashes}"),
        rows=(make_row(1, 1, evaluations, latency_ms),),
    )
    for target in targets:
        write_result(target, result)
    print(markdown_table(result))
    print(f"\n{targets[0]}")


if __name__ == "__main__":
    main()
