"""What rollouts came to: the result of an episode, and of an evaluation with its intervals."""

from dataclasses import dataclass, field

import numpy as np

from shortcut_policy.statistics import Interval, bootstrap_mean_interval, wilson_interval


@dataclass(frozen=True)
class EpisodeResult:
    """What one episode came to; results are equal where the outcome is, filmed or not, rerun or not."""

    seed: int
    slot: int
    max_reward: float  # over the steps of the episode: its score
    success: bool | None  # `is_success` in the info of any step; None where no info had it
    steps: int
    rerun: bool = field(default=False, compare=False)  # its worker died on the first run, which does not count
    frames: tuple[np.ndarray, ...] | None = field(default=None, compare=False, repr=False)  # steps + 1 images (H, W, 3)


@dataclass(frozen=True)
class Evaluation:
    """The episodes of an evaluation in the order of their seeds, and what they say together."""

    episodes: tuple[EpisodeResult, ...]
    render_fps: float | None = field(default=None, compare=False)  # of the frames, as the metadata say

    @property
    def num_episodes(self) -> int:
        """Number of episodes, n of the rates and intervals."""
        return len(self.episodes)

    @property
    def scores(self) -> np.ndarray:
        """Score of every episode, (n,) float64."""
        return np.array([episode.max_reward for episode in self.episodes])

    @property
    def mean_score(self) -> float:
        """Mean of the scores."""
        return float(self.scores.mean())

    @property
    def score_interval(self) -> Interval:
        """Bootstrap 95 % interval of the mean score, over the episodes."""
        return bootstrap_mean_interval([self.scores])

    @property
    def success_rate(self) -> float:
        """Share of the episodes that succeeded.

        Raises:
            ValueError: the environment did not say of all whether they did.
        """
        return sum(self.successes) / self.num_episodes

    @property
    def success_interval(self) -> Interval:
        """Wilson 95 % interval of the success rate."""
        return wilson_interval(sum(self.successes), self.num_episodes)

    @property
    def reruns(self) -> tuple[int, ...]:
        """Seeds of the episodes that ran again because a worker died; their results are as good as any."""
        return tuple(episode.seed for episode in self.episodes if episode.rerun)

    @property
    def successes(self) -> list[bool]:
        """Whether every episode succeeded; raises as `success_rate` does."""
        told = [episode.success for episode in self.episodes if episode.success is not None]
        if len(told) < self.num_episodes:
            raise ValueError(
                f"whether {self.num_episodes - len(told)} of {self.num_episodes} episodes succeeded is not known: the "
                "environment's info needs 'is_success' (bool); mean_score, of the rewards alone, does without"
            )
        return told
