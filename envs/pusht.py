"""Push-T, a disc that pushes a T-shaped block onto its goal: gym-pusht with Diffusion Policy's observations."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

__all__ = ["KEYPOINTS", "PushT"]

# Diffusion Policy's nine keypoints in the block's body frame, px: world = R(angle) @ keypoint + block_pos. They are
# pixels of the drawn block, each shifted by a draw of np.random.default_rng(0).uniform(0, 1) (the generator's first
# 64 bits chose the first pixel): no round numbers, and yet known to the last digit. With them the data set's
# keypoints follow from its poses to float32 rounding (1.5e-5 px) wherever the disc does not touch the block. Where it
# does, the data's keypoints are those of the block after the simulator pushed it out of the disc once more (two
# physics steps at rest from the recorded pose explain 94 % of the difference): 0.035 px in the 99 % quantile,
# 2 px at the first step of episodes that start with an overlap. In this environment keypoints and pose always agree.
KEYPOINTS = np.array(
    [
        (9.269786713763871, 90.04097352393619),
        (-60.983472364471474, -1.1867297607997276),
        (60.91275557727772, -1.3933642242328201),
        (-0.2705034390160016, 25.54362499146542),
        (-14.064927576212233, 122.81585355412153),
        (39.002738500170146, 32.857404276587566),
        (-39.966414424694534, 32.729655446429945),
        (-16.82434437939744, 62.86317892234989),
        (23.54146122024909, -1.7002881094626152),
    ]
)  # (9, 2)
KEYPOINTS.flags.writeable = False


class PushT(gymnasium.Env):
    """Push-T with the state observations of Diffusion Policy's data set.

    Observation, float32, in px of the 512 x 512 field (y points down in images):
        agent_pos (2,), block_pos (2,), block_rotation (2,): cosine and sine of the block's angle,
        keypoints (18,): x0, y0, x1, y1, ... of `KEYPOINTS` in the world.
        image (image_size, image_size, 3), uint8: the scene as in the data set's images, where it is asked for.
    Action (2,), float32: where the disc shall go, px; values outside [0, 512] are obeyed, too.
    Reward: clip(coverage / 0.95, 0, 1), where coverage is the share of the goal that the block covers.
    Info: `coverage` (float in [0, 1]) and `is_success` (bool, coverage > 0.95), upon which the episode terminates.

    A step lasts 0.1 s. `reset(seed=...)` draws gym-pusht's initial states; `reset(options={"state": (agent_x, agent_y,
    block_x, block_y, angle)})` starts at rest from exactly that state (px and rad), a row of the data set's `state`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's convention)

    def __init__(self, render_mode: str | None = None, render_size: int = 96, image_size: int | None = None) -> None:
        """Build the simulator.

        Args:
            image_size: Side of the observed image, px (the data set's: 96); None for none, which is faster.
            render_mode: "rgb_array", or None if nothing will be rendered. Neither needs a display.
            render_size: Side of the rendered square image, px, at least 96.

        Raises:
            ValueError: If an argument is out of range.
            ImportError: If gym-pusht is not installed.
        """
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}: choose 'rgb_array' or None")
        if render_size < 96:  # below, the marker of the action would be drawn with lines of no width
            raise ValueError(f"render_size={render_size} is too small to draw the scene: give at least 96")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be positive, got {image_size}")
        self.render_mode = render_mode
        self._image_size = image_size
        self.action_space = Box(0, 512, (2,), np.float32)
        spaces = {
            "agent_pos": Box(-np.inf, np.inf, (2,), np.float32),
            "block_pos": Box(-np.inf, np.inf, (2,), np.float32),
            "block_rotation": Box(-1, 1, (2,), np.float32),
            "keypoints": Box(-np.inf, np.inf, (KEYPOINTS.size,), np.float32),
        }
        if image_size is not None:
            spaces["image"] = Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = Dict(spaces)
        self._simulator = _simulator_class()(visualization_width=render_size, visualization_height=render_size)

    @property
    def simulator(self) -> gymnasium.Env:
        """The gym-pusht environment itself, for benchmarks."""
        return self._simulator

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode, from a drawn state or from `options["state"]`.

        Raises:
            ValueError: If an option is unknown or the state is not five finite numbers.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        state = options.pop("state", None)
        if options:
            raise ValueError(f"unknown reset option {next(iter(options))!r}: the only one is 'state'")
        self._simulator.reset(seed=seed)
        self._simulator._last_action = None  # else the first image would show the last episode's action
        if state is not None:
            self._place(state)
        coverage = float(self._simulator._get_coverage())
        return self._observation(), {"coverage": coverage, "is_success": coverage > 0.95}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move the disc towards `action` (2,), px, for 0.1 s.

        Raises:
            ValueError: If the action is not two finite numbers.
        """
        action = _finite("action", action, 2)  # Chipmunk ends the process when it meets a NaN
        _, reward, terminated, truncated, info = self._simulator.step(action)
        info = {"coverage": float(info["coverage"]), "is_success": bool(info["is_success"])}
        return self._observation(), float(reward), bool(terminated), truncated, info

    def render(self) -> np.ndarray | None:
        """Draw the scene and the last action: (render_size, render_size, 3) uint8; None without a render mode."""
        return None if self.render_mode is None else self._simulator.render()

    def close(self) -> None:
        """Release the simulator."""
        self._simulator.close()

    def _place(self, state: Sequence[float]) -> None:
        agent_x, agent_y, block_x, block_y, angle = _finite("state", state, 5).tolist()
        simulator = self._simulator
        simulator._setup()  # fresh bodies, without the speed and the contacts of the drawn state
        simulator.agent.position = agent_x, agent_y
        simulator.block.angle = angle  # turns about the centre of gravity, not about `position`: hence the order
        simulator.block.position = block_x, block_y
        for body in (simulator.agent, simulator.block):
            simulator.space.reindex_shapes_for_body(body)  # for drawing; a physics step would push the block

    def _observation(self) -> dict[str, np.ndarray]:
        block = self._simulator.block
        position = np.array(block.position)
        cosine, sine = math.cos(block.angle), math.sin(block.angle)
        keypoints = KEYPOINTS @ np.array([(cosine, sine), (-sine, cosine)]) + position  # (9, 2)
        observation = {
            "agent_pos": np.array(self._simulator.agent.position, np.float32),
            "block_pos": position.astype(np.float32),
            "block_rotation": np.array((cosine, sine), np.float32),
            "keypoints": keypoints.astype(np.float32).ravel(),
        }
        if self._image_size is not None:
            scene = self._simulator._draw()
            observation["image"] = self._simulator._get_img(scene, self._image_size, self._image_size)
        return observation


def _finite(name: str, values: Sequence[float] | np.ndarray, size: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be {size} finite numbers, got {values!r}")
    return array


def _simulator_class() -> type[gymnasium.Env]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # of pygame's
            from gym_pusht.envs.pusht import PushTEnv
    except ImportError as error:
        raise ImportError(f"Push-T needs gym-pusht ({error}): install it with `pip install -e .[pusht]`") from error
    return PushTEnv
