"""robomimic beside us: our policies and environments in its rollout interface, its policies in our evaluation.

This is the one module that imports robomimic, so import it only where robomimic is asked for.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import gymnasium
import numpy as np
import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from envs.success import told_success
from shortcut_policy.agent import PolicyAgent
from shortcut_policy.experiment import SLOTS
from shortcut_policy.policy import Policy

try:
    from robomimic.algo import RolloutPolicy
    from robomimic.algo.bc import BC_RNN_GMM
    from robomimic.envs.env_base import EnvBase, EnvType
    from robomimic.utils.file_utils import config_from_checkpoint, policy_from_checkpoint
except ImportError as error:
    raise ImportError(
        f"this needs robomimic ({error}): `make .venv/.robomimic` installs it, for which there must be a C++ compiler"
    ) from error

__all__ = ["RobomimicAgent", "RobomimicEnv", "RobomimicPolicy", "load_robomimic_policy"]


class RobomimicPolicy(RolloutPolicy):
    """Our policy where robomimic expects one of its own, with the actions that our evaluation would see.

    Episode i, which the i-th `start_episode` begins, has the seed `first_seed + i` and the slot `i % slots` of a batch
    whose other rows are zeros. Histories are kept here: the environment must not stack frames.

    Args:
        policy: on the device on which it shall run.
        num_steps: network evaluations per chunk.
        first_seed: seed of the first episode's noise.
        slots: rows of every batch, as many as in the evaluation to compare with.
    """

    def __init__(self, policy: Policy, *, num_steps: int = 1, first_seed: int = 100_000, slots: int = SLOTS) -> None:
        super().__init__(policy)
        self._agent = PolicyAgent(policy, slots, num_steps)
        self._slots = slots
        self._first_seed = first_seed
        self._episodes = 0

    def start_episode(self) -> None:
        """Begin the next episode."""
        self._slot = self._episodes % self._slots
        seeds: list[int | None] = [None] * self._slots
        seeds[self._slot] = self._first_seed + self._episodes
        self._agent.reset(seeds)
        self._episodes += 1

    def __call__(self, ob: Mapping[str, np.ndarray], goal: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """The action (E,) for the newest observation {key: (D,)}; keys on which the policy was not trained are ignored.

        Raises:
            ValueError: an observation is missing or has another shape, there is a goal, or no episode has begun.
        """
        if not self._episodes:
            raise ValueError("no episode has begun: call start_episode() before the first action")
        if goal is not None:
            raise ValueError(f"the policy takes no goal, got one of {', '.join(goal)}: roll out with use_goals=False")
        batch = {}
        for key, shape in self.policy.config.observation_shapes.items():
            if key not in ob:
                raise ValueError(f"the environment has no observation {key!r}: it has {', '.join(ob)}")
            if np.shape(ob[key]) != shape:
                raise ValueError(
                    f"observation {key!r} must have shape {shape}, got {np.shape(ob[key])}: give single observations "
                    "without batch or stacked frames"
                )
            dtype = np.uint8 if key in self.policy.config.image_shapes else np.float32
            batch[key] = np.zeros((self._slots, *shape), dtype)
            batch[key][self._slot] = ob[key]
        return self._agent.act(batch)[self._slot]


class RobomimicEnv(EnvBase):
    """A gymnasium environment where robomimic's rollouts expect one of theirs.

    The i-th `reset` has the seed `first_seed + i`, as in our evaluation.

    Args:
        env: with Dict observations, Box actions and `is_success` in the info of every step.
        first_seed: of the first episode.
        action_representation: what the policy's actions are, for an environment whose metadata name under this key
            what it takes; None skips the comparison.

    Raises:
        ValueError: the environment takes other actions.
    """

    def __init__(
        self, env: gymnasium.Env, *, first_seed: int = 100_000, action_representation: str | None = None
    ) -> None:
        taken = env.metadata.get("action_representation", "as_stored")
        if action_representation not in (None, taken):
            raise ValueError(
                f"the policy's actions are {action_representation!r}, the environment takes {taken!r}: make the "
                "environment with the actions of the policy's data"
            )
        self.env = env
        self._next_seed = first_seed
        self._observation: dict[str, np.ndarray] = {}
        self._reward, self._done, self._success = 0.0, False, False

    def reset(self) -> dict[str, np.ndarray]:
        """Begin the next episode: its first observation {key: array}."""
        self._observation, info = self.env.reset(seed=self._next_seed)
        self._next_seed += 1
        self._reward, self._done, self._success = 0.0, False, bool(told_success(info))
        return self.get_observation()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, dict[str, Any]]:
        """Act (E,): observation, reward, whether the episode has ended for whatever reason, info.

        Raises:
            ValueError: the info does not say whether the task is done, which robomimic asks after every step.
        """
        action = np.asarray(action, self.env.action_space.dtype)
        self._observation, reward, terminated, truncated, info = self.env.step(action)
        self._reward, self._done = float(reward), bool(terminated or truncated)
        success = told_success(info)
        if success is None:
            raise ValueError(
                "robomimic asks after every step whether the task is done: the environment's info needs 'is_success' "
                f"(bool), and has {', '.join(info) or 'nothing'}"
            )
        self._success = success
        return self.get_observation(), self._reward, self._done, info

    def render(
        self, mode: str = "human", height: int | None = None, width: int | None = None, camera_name: str | None = None
    ) -> np.ndarray:
        """The scene (H, W, 3) uint8 for mode "rgb_array", from the camera and in the size that the environment has."""
        if mode != "rgb_array" or self.env.render_mode != "rgb_array":
            raise ValueError(
                f"mode={mode!r} of an environment with render_mode={self.env.render_mode!r} shows nothing: choose "
                "'rgb_array' for both"
            )
        return self.env.render()

    def get_observation(self) -> dict[str, np.ndarray]:
        """The newest observation, {key: array}; empty before the first reset."""
        return dict(self._observation)

    def get_reward(self) -> float:
        """The newest reward."""
        return self._reward

    def is_done(self) -> bool:
        """Whether the episode has ended."""
        return self._done

    def is_success(self) -> dict[str, bool]:
        """Whether the task is solved now."""
        return {"task": self._success}

    @property
    def action_dimension(self) -> int:
        """Width E of the action."""
        return self.env.action_space.shape[0]

    @property
    def name(self) -> str:
        """The environment's gymnasium id, or its class."""
        return self.env.spec.id if self.env.spec else type(self.env.unwrapped).__name__

    @property
    def type(self) -> int:
        """robomimic's number for gym environments, whatever simulates them."""
        return EnvType.GYM_TYPE

    def serialize(self) -> dict[str, Any]:
        """robomimic's description of an environment."""
        return {
            "env_name": self.name,
            "type": self.type,
            "env_kwargs": dict(self.env.spec.kwargs if self.env.spec else {}),
        }

    @property
    def rollout_exceptions(self) -> tuple[type[Exception], ...]:
        """None: an environment that fails says so."""
        return ()

    def get_state(self) -> NoReturn:
        """Not supported."""
        raise NotImplementedError("a rollout needs no simulator states: convert_demos.py replays them")

    def reset_to(self, state: Mapping[str, Any]) -> NoReturn:
        """Not supported."""
        raise NotImplementedError("a rollout begins with a seed: convert_demos.py replays states")

    def get_goal(self) -> NoReturn:
        """Not supported."""
        raise NotImplementedError("the environment has no goals: roll out with use_goals=False")

    def set_goal(self, **goal: Any) -> NoReturn:
        """Not supported."""
        raise NotImplementedError("the environment has no goals: roll out with use_goals=False")

    @classmethod
    def create_for_data_processing(cls, *arguments: Any, **options: Any) -> NoReturn:
        """Not supported."""
        raise NotImplementedError("this environment is for rollouts: convert_demos.py makes data sets")


class RobomimicAgent:
    """A BC-RNN-GMM policy of robomimic's as the agent of our evaluation; slots do not depend on each other.

    As in robomimic, the hidden state begins anew every `rnn.horizon` steps. Unlike there, the mixture is sampled with a
    generator per episode, seeded with the episode's seed: robomimic draws from torch's global one.

    Args:
        policy: from `load_robomimic_policy`.
        slots: rows of every batch that the network sees, used or not.
    """

    def __init__(self, policy: RolloutPolicy, slots: int) -> None:
        self._algo = policy.policy
        self._statistics = {
            key: {name: torch.as_tensor(np.asarray(value), dtype=torch.float32) for name, value in values.items()}
            for key, values in (policy.obs_normalization_stats or {}).items()
        }
        self._slots = slots
        self.reset([None] * slots)

    def reset(self, seeds: Sequence[int | None]) -> None:
        """Begin an episode in every slot with a seed; None marks an unused slot."""
        if len(seeds) != self._slots:
            raise ValueError(f"expected {self._slots} seeds, one per slot, got {len(seeds)}")
        self._generators = [None if seed is None else torch.Generator().manual_seed(seed) for seed in seeds]
        self._hidden: Any = None
        self._steps = 0

    @torch.no_grad()
    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Actions (slots, E) for the newest observations {key: (slots, D)}.

        Raises:
            ValueError: an observation is missing or has another shape than in the training.
        """
        inputs = {key: self._input(observation, key, tuple(shape)) for key, shape in self._algo.obs_shapes.items()}
        network = self._algo.nets["policy"]
        if self._steps % self._algo.algo_config.rnn.horizon == 0:
            self._hidden = network.get_rnn_init_state(batch_size=self._slots, device=self._algo.device)
        self._steps += 1
        mixture, self._hidden = network.forward_train_step(inputs, rnn_state=self._hidden)
        return self._draw(mixture).numpy()

    def _input(self, observation: Mapping[str, np.ndarray], key: str, shape: tuple[int, ...]) -> Tensor:
        if key not in observation:
            raise ValueError(
                f"the environment has no observation {key!r}, on which the robomimic policy was trained: it has "
                f"{', '.join(observation)}"
            )
        values = torch.as_tensor(observation[key], dtype=torch.float32)
        if values.shape[1:] != shape:
            raise ValueError(
                f"observation {key!r} has shape {tuple(values.shape[1:])} in the environment, but the robomimic policy "
                f"was trained on {shape}: choose the environment of its data"
            )
        if key in self._statistics:
            values = (values - self._statistics[key]["mean"]) / self._statistics[key]["std"]
        return values.to(self._algo.device)

    def _draw(self, mixture: MixtureSameFamily) -> Tensor:
        """One action (slots, E) of a mixture with batch shape (slots,), each row from its episode's generator."""
        components = mixture.component_distribution.base_dist
        means, deviations = components.loc.cpu(), components.scale.cpu()  # (slots, modes, E)
        ceilings = mixture.mixture_distribution.probs.cumsum(-1).cpu()  # (slots, modes)
        uniform, noise = torch.zeros(self._slots, 1), torch.zeros(self._slots, means.shape[-1])
        for slot, generator in enumerate(self._generators):
            if generator is not None:
                uniform[slot] = torch.rand(1, generator=generator)
                noise[slot] = torch.randn(means.shape[-1], generator=generator)
        mode = torch.searchsorted(ceilings, uniform, right=True).clamp(max=means.shape[1] - 1).squeeze(1)  # (slots,)
        rows = torch.arange(self._slots)
        return means[rows, mode] + deviations[rows, mode] * noise


def load_robomimic_policy(path: str | Path, device: torch.device | str = "cpu") -> RolloutPolicy:
    """Load a checkpoint (.pth) of robomimic's BC-RNN-GMM with low-dimensional observations; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, needs code to be loaded, or holds another kind of policy.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no robomimic checkpoint {path}: give the path of a .pth file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged or no checkpoint that loads without running code ({reason})") from error
    if not isinstance(checkpoint, dict) or not {"model", "config", "algo_name", "shape_metadata"} <= checkpoint.keys():
        raise ValueError(f"{path} is no checkpoint that robomimic wrote: it lacks model, config or shape_metadata")
    _check_loadable(path, checkpoint)
    with redirect_stdout(StringIO()):  # it prints its observation keys
        policy, _ = policy_from_checkpoint(device=torch.device(device), ckpt_dict=checkpoint)
    if not isinstance(policy.policy, BC_RNN_GMM):
        raise ValueError(f"{path} holds a {type(policy.policy).__name__} policy: only BC_RNN_GMM can be evaluated")
    return policy


def _check_loadable(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuse what would need more than a state, and encoders: robomimic passes their names to `eval`."""
    if checkpoint["algo_name"] != "bc":
        raise ValueError(f"{path} holds a policy of {checkpoint['algo_name']!r}: only 'bc' can be evaluated")
    config, _ = config_from_checkpoint(ckpt_dict=checkpoint)
    observation = config.observation
    images = [key for kind, keys in observation.modalities.obs.items() if kind != "low_dim" for key in keys]
    if images:
        raise ValueError(f"{path} was trained on the images {', '.join(images)}: only states can be evaluated")
    encoder = observation.encoder.low_dim
    if encoder.core_class is not None or encoder.obs_randomizer_class is not None:
        raise ValueError(f"{path} encodes states by {encoder.core_class!r}: only states as they are can be evaluated")
    if config.use_goals or config.algo.rnn.open_loop or config.train.frame_stack != 1:
        raise ValueError(f"{path} has goals, stacked frames or an open loop: only a plain RNN policy can be evaluated")
