"""Experts' demonstrations become a robomimic data set: episodes of consecutive seeds, the successful ones kept.

The data set is a pure function of the task, the number of episodes, the first seed and the cameras; a demo's name is
that of its seed.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from envs.controllers import composite_controllers
from envs.env_args import RecordedEnvironment, simulator_versions
from envs.expert_worker import serve_episodes
from envs.experts import env_name, settings_of
from envs.experts.episode import Episode
from envs.rendering import choose_backend
from shortcut_policy.data.robomimic_writer import Demo, RobomimicWriter, split_masks
from shortcut_policy.diversity import Diversity, measure_diversity
from shortcut_policy.worker_processes import answers

__all__ = ["CollectionConfig", "CollectionReport", "collect", "format_report"]

_HOPELESS = 100  # attempts without a success


@dataclass(frozen=True)
class CollectionConfig:
    """What to collect.

    Attributes:
        task: one that has an expert, such as "lift".
        episodes: successful ones that make the data set.
        output: HDF5 file to be.
        cameras: which become `obs/{camera}_image`; needs GL.
        camera_size: side of these images, px.
        first_seed: of the first attempt; the next ones follow. Evaluations begin at 100000.
        valid_fraction: share of the demos that become `mask/valid`.
        split_seed: of that choice.
        workers: processes in which experts act.
    """

    task: str
    episodes: int
    output: str
    cameras: tuple[str, ...] = ()
    camera_size: int = 84
    first_seed: int = 0
    valid_fraction: float = 0.1
    split_seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        env_name(self.task)
        for name in ("episodes", "camera_size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("first_seed", "split_seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.valid_fraction < 1:
            raise ValueError(f"valid_fraction must lie in [0, 1), got {self.valid_fraction}")
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras must differ, got {list(self.cameras)}")


@dataclass(frozen=True)
class CollectionReport:
    """What was collected: the seeds of the demos, the attempts they took, their numbers of steps, and their ways."""

    env_name: str
    seeds: tuple[int, ...]
    attempts: int
    steps: tuple[int, ...]
    diversity: Diversity

    @property
    def success_rate(self) -> float:
        """Share of the attempts that succeeded, up to the last that was needed."""
        return len(self.seeds) / self.attempts


def collect(config: CollectionConfig, progress: Callable[[int, int], None] = lambda done, of: None) -> CollectionReport:
    """Collect demonstrations, or go on where the same collection was interrupted.

    Args:
        config: what.
        progress: called with the number of successful episodes there are and shall be, after every episode.

    Raises:
        FileExistsError: the output exists, or is begun with other settings.
        ValueError: a camera does not exist.
        ImportError: robosuite is not installed, or cameras are asked for and there is no GL.
        ChildProcessError: a worker process died; the same collection goes on.
        RuntimeError: no attempt succeeds.
    """
    versions, settings = simulator_versions(), asdict(settings_of(config.task))
    source = {name: getattr(config, name) for name in ("task", "cameras", "camera_size")}
    writer = RobomimicWriter(config.output, {**source, "expert": settings, **versions})
    if config.cameras:
        choose_backend()  # once for all workers, and before anything is begun
    environment = _env_args(config, versions["robosuite"])
    seeds = _collect_missing(writer, environment, config, progress)
    attempts = seeds[-1] - config.first_seed + 1
    demos = [_name(seed) for seed in seeds]
    steps = tuple(int(writer.attributes(demo)["steps"]) for demo in demos)
    writer.assemble(
        demos,
        environment,
        split_masks(demos, config.valid_fraction, config.split_seed),
        {
            "expert": json.dumps({"task": config.task, **settings}),
            "first_seed": config.first_seed,
            "attempts": attempts,
            "success_rate": len(seeds) / attempts,
            **{f"collected_with_{name}": number for name, number in versions.items()},
        },
    )
    return CollectionReport(environment["env_name"], seeds, attempts, steps, measure_diversity(config.output))


def format_report(report: CollectionReport) -> str:
    """Lay the ways out as a table, with the totals below."""
    demos, diversity = len(report.seeds), report.diversity
    by_lot = f" (ways drawn by lot: {(len(diversity.ways) - 1) / (demos - 1):.0%})" if demos > 1 else ""
    rows = [f"{way:<16}{count:>6}{count / demos:>8.0%}" for way, count in diversity.ways.items()]
    return "\n".join(
        [
            f"{'way':<16}{'demos':>6}{'share':>8}",
            *rows,
            f"the hand's paths: {1000 * diversity.between:.0f} mm between ways and {1000 * diversity.within:.0f} mm "
            f"within; the ways explain {diversity.explained:.0%} of their variance{by_lot}",
            f"{report.env_name}: {demos} of {report.attempts} attempts succeeded ({report.success_rate:.0%}), in "
            f"{np.mean(report.steps):.0f} steps on average ({min(report.steps)} to {max(report.steps)})",
        ]
    )


def _collect_missing(
    writer: RobomimicWriter,
    environment: Mapping[str, Any],
    config: CollectionConfig,
    progress: Callable[[int, int], None],
) -> tuple[int, ...]:
    """Write the demos that are missing and return the seeds of all; failures are not remembered but made again."""
    succeeded = {int(name.removeprefix("demo_")): True for name in writer.finished()}
    untried = (seed for seed in itertools.count(config.first_seed) if seed not in succeeded)
    attempts = answers(
        serve_episodes,
        config.task,
        environment,
        config.cameras,
        config.camera_size,
        requests=untried,
        workers=config.workers,
        name="expert worker",
        task="its expert acted on seed",
    )
    with closing(attempts):
        while len(seeds := _first_successes(succeeded, config)) < config.episodes:
            progress(len(seeds), config.episodes)
            if len(succeeded) >= _HOPELESS and not any(succeeded.values()):
                raise RuntimeError(f"the expert of {config.task} failed on {len(succeeded)} seeds: is it broken?")
            seed, episode = next(attempts)
            if episode.success:
                writer.add(_name(seed), _demo(seed, episode))
            succeeded[seed] = episode.success
    progress(len(seeds), config.episodes)
    return seeds


def _first_successes(succeeded: Mapping[int, bool], config: CollectionConfig) -> tuple[int, ...]:
    """The first successful seeds of those that are known without a gap: more will not come before them."""
    known = itertools.takewhile(succeeded.__contains__, itertools.count(config.first_seed))
    return tuple(itertools.islice((seed for seed in known if succeeded[seed]), config.episodes))


def _name(seed: int) -> str:
    return f"demo_{seed}"


def _demo(seed: int, episode: Episode) -> Demo:
    steps = len(episode.actions)
    return Demo(
        actions=episode.actions,
        observations=episode.observations,
        rewards=episode.rewards,
        dones=episode.successes | (np.arange(steps) == steps - 1),
        states=episode.states,
        model=episode.model,
        arrays={"actions_abs": episode.absolute_actions},
        attributes={"seed": seed, "way": episode.way, "steps": steps},
    )


def _env_args(config: CollectionConfig, version: str) -> dict[str, Any]:
    """All that builds the environment again, in the form of robomimic."""
    environment = RecordedEnvironment.of_today(env_name(config.task))
    (controllers, *_) = composite_controllers(None, len(environment.robots), "delta_pose")
    sizes = [config.camera_size] * len(config.cameras)
    return {
        "env_name": environment.name,
        "env_version": version,
        "type": 1,  # robomimic's number for robosuite
        "env_kwargs": {
            "robots": list(environment.robots),
            "controller_configs": controllers,
            "control_freq": 20,
            "reward_shaping": False,
            "ignore_done": True,
            "use_object_obs": True,
            "use_camera_obs": bool(config.cameras),
            "has_renderer": False,
            "has_offscreen_renderer": bool(config.cameras),
            **(
                {"camera_names": list(config.cameras), "camera_heights": sizes, "camera_widths": sizes} if sizes else {}
            ),
        },
    }
