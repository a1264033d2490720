"""robosuite's manipulation tasks, built from a data set's `env_args`, with robomimic's observations."""

import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from envs.controllers import ActionRepresentation, composite_controllers, hold_rotations
from envs.env_args import RecordedEnvironment
from envs.object_state import ObjectState, poses_first
from envs.recorded_model import updated_model
from envs.rendering import importing_robosuite, prepare_rendering

__all__ = ["RobosuiteEnv"]


class RobosuiteEnv(gymnasium.Env):
    """A robosuite task with the observations of robomimic's data sets.

    Observation, by robomimic's names: `object` (all that robosuite tells of the task's objects, composed as the
    recording's version of robosuite did), `robot0_eef_pos` (3,) in m, `robot0_eef_quat` (4,) as x y z w,
    `robot0_gripper_qpos` (2,) and all other sensors that robosuite has, float32; `{camera}_image`
    (camera_size, camera_size, 3) uint8 for every camera asked for.
    Action, float32, for each arm 7 numbers, see `ActionRepresentation`; robosuite clips delta actions to [-1, 1].
    Reward: robosuite's, 1 for success if not shaped. Info: `is_success` (bool), upon which the episode terminates.

    `reset(seed=...)` is a pure function of the seed. `reset(options={"state": (1 + nq + nv,)})` starts from a recorded
    simulator state, together with `"model"`, the recorded model, from a state of that model; the model stays until the
    next reset without a state.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (gymnasium's convention)

    def __init__(
        self,
        task: str | None = None,
        *,
        env_args: Mapping[str, Any] | None = None,
        actions: ActionRepresentation = "delta_pose",
        cameras: Sequence[str] = (),
        camera_size: int = 84,
        render_mode: str | None = None,
        render_camera: str | None = None,
        render_size: int = 256,
    ) -> None:
        """Build the simulator.

        Args:
            task: robosuite's name of the environment.
            env_args: of a data set: `env_name` (which must be `task` where that is given), `env_kwargs`, `env_version`
                (of robosuite, when the data were recorded), `type`. Without them, the environment is as of today.
            actions: what `step` takes.
            cameras: which become observations, such as "agentview"; needs GL.
            camera_size: side of these images, px.
            render_mode: "rgb_array" (needs GL), or None if nothing will be rendered.
            render_camera: of `render`; default: the scene's "agentview", or else its first camera.
            render_size: side of the rendered image, px.

        Raises:
            ValueError: `env_args` name an environment, a controller or a camera that does not exist or fit.
            ImportError: robosuite is not installed, or images are asked for and there is no GL.
        """
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}: choose 'rgb_array' or None")
        for name, size in (("camera_size", camera_size), ("render_size", render_size)):
            if size < 1:
                raise ValueError(f"{name} must be positive, got {size}")
        if env_args is not None:
            recorded = RecordedEnvironment.from_env_args(env_args, task)
        elif task is not None:
            recorded = RecordedEnvironment.of_today(task)
        else:
            raise ValueError("RobosuiteEnv needs a task such as 'Lift', or the env_args of a data set")
        self._recorded = recorded
        draws = bool(cameras) or render_mode is not None
        robosuite = _import_robosuite()
        if draws:
            prepare_rendering()
        if recorded.name not in robosuite.ALL_ENVIRONMENTS:
            raise ValueError(
                f"env_args name the environment {recorded.name!r}, which robosuite {robosuite.__version__} does not "
                f"have: it has {', '.join(sorted(robosuite.ALL_ENVIRONMENTS))}"
            )
        if multiprocessing.parent_process() is None:  # else whoever started the workers has been warned
            recorded.warn_if_another_is_installed()
        self._assets = Path(robosuite.__file__).parent / "models" / "assets"
        ours = {
            "robots": list(recorded.robots),
            "controller_configs": composite_controllers(recorded.controllers, len(recorded.robots), actions),
            "has_renderer": False,
            "has_offscreen_renderer": draws,
            "use_camera_obs": bool(cameras),
            "use_object_obs": True,
            "camera_names": list(cameras) or "agentview",
            "camera_heights": camera_size,
            "camera_widths": camera_size,
            "ignore_done": True,
            "renderer": "mujoco",  # the other one opens a window
        }
        try:
            self._simulator = robosuite.make(recorded.name, **recorded.options, **ours)
        except ValueError as error:
            unknown = [camera for camera in cameras if f"{camera}_image" in str(error)]
            if not unknown:
                raise
            blind = robosuite.make(recorded.name, **recorded.options, **ours | {"use_camera_obs": False})
            raise _no_camera(recorded.name, unknown[0], blind) from error
        except TypeError as error:
            raise ValueError(
                f"env_kwargs do not fit {recorded.name} of robosuite {robosuite.__version__}: {error}"
            ) from error
        self._object_state = self._make_object_state()
        self.actions = actions
        self.render_mode = render_mode
        self._render_camera, self._render_size = render_camera or self._default_camera(), render_size
        if self._render_camera not in self._simulator.sim.model.camera_names:
            raise _no_camera(recorded.name, self._render_camera, self._simulator)
        self.metadata = {
            **type(self).metadata,
            "render_fps": self._simulator.control_freq,
            "action_representation": actions,
        }
        self.action_space = self._make_action_space()
        observation = self._observation(self._simulator.observation_spec())
        self.observation_space = Dict({key: _space(value) for key, value in observation.items()})

    @property
    def simulator(self) -> Any:
        """The robosuite environment itself, for experts and benchmarks."""
        return self._simulator

    @property
    def arms(self) -> tuple[tuple[Any, str], ...]:
        """(robot, name of the arm) of every arm, in the order of the action's parts."""
        return tuple((robot, arm) for robot in self._simulator.robots for arm in robot.arms)

    @property
    def state(self) -> np.ndarray:
        """The simulator's state (1 + nq + nv,): time, positions, velocities."""
        return np.array(self._simulator.sim.get_state().flatten())

    @property
    def is_success(self) -> bool:
        """Whether the task is done in the present state."""
        return bool(self._simulator._check_success())

    @property
    def model(self) -> str:
        """The simulated model as MuJoCo XML, as robomimic's data sets keep it."""
        return self._simulator.sim.model.get_xml()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode, drawn or from `options["state"]`.

        Raises:
            ValueError: an option is unknown, a model comes without a state or cannot be simulated, or the state is not
                one of the model.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        state, model = options.pop("state", None), options.pop("model", None)
        if options:
            raise ValueError(f"unknown reset option {next(iter(options))!r}: choose 'state' and 'model'")
        if model is not None and state is None:
            raise ValueError("reset to a model needs its 'state' too")
        # All of robosuite's samplers share this generator: reseed it in place.
        fresh = np.random.default_rng(self.np_random.integers(2**63))
        self._simulator.rng.bit_generator.state = fresh.bit_generator.state
        observation = self._simulator.reset()
        if state is not None:
            if model is not None:
                self._load(model)
            observation = self._place(state)
        if self._recorded.is_before_1_5 and self.actions == "delta_pose":
            hold_rotations(robot.part_controllers[arm] for robot, arm in self.arms)  # new ones in every episode
        return self._observation(observation), {"is_success": self.is_success}

    def place(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Go to a state of the present model and return what is observed there; a reset takes a thousand times longer.

        Raises:
            ValueError: the state is not one of the model.
        """
        return self._observation(self._place(state))

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act for one control step, 1 / 20 s by default.

        Raises:
            ValueError: the action is not of the right number of finite values.
        """
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(f"action must be {self.action_space.shape[0]} finite numbers, got {action!r}")
        observation, reward, _, _ = self._simulator.step(action)
        success = self.is_success
        return self._observation(observation), float(reward), success, False, {"is_success": success}

    def render(self) -> np.ndarray | None:
        """Draw the scene: (render_size, render_size, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        size = self._render_size
        image = self._simulator.sim.render(camera_name=self._render_camera, width=size, height=size)
        return np.ascontiguousarray(image[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Release the simulator."""
        self._simulator.close()

    def absolute_action(self, action: np.ndarray) -> np.ndarray:
        """The absolute action (7 arms,) whose goal is that of the delta action (7 arms,) in the present state.

        Raises:
            ValueError: a controller is not OSC_POSE.
        """
        import mujoco

        from envs.osc_pose import OscScale, absolute_from_delta

        sim = self._simulator.sim
        mujoco.mj_kinematics(sim.model._model, sim.data._data)  # after a step, poses are those of one physics step ago
        configs = composite_controllers(self._recorded.controllers, len(self._recorded.robots), "delta_pose")
        parts = []
        for (robot, arm), part in zip(self.arms, np.split(np.asarray(action, np.float64), len(self.arms)), strict=True):
            config = configs[robot.idn]["body_parts"][arm]
            site = robot.eef_site_id[arm]
            _, base = robot.composite_controller.get_controller_base_pose(arm)
            parts.append(
                absolute_from_delta(
                    part,
                    position=sim.data.site_xpos[site],
                    rotation=sim.data.site_xmat[site].reshape(3, 3),
                    scale=OscScale.from_config(config),
                    frame=base if config.get("input_ref_frame", "base") == "base" else None,
                )
            )
        return np.concatenate(parts)

    def _load(self, model: str) -> None:
        xml = updated_model(model, self._simulator.model.get_xml(), self._assets)
        try:
            self._simulator.reset_from_xml_string(xml)
        except (ValueError, KeyError, AssertionError) as error:
            raise ValueError(f"the embedded model cannot be simulated as {self._recorded.name!r}: {error}") from error
        self._simulator.sim.reset()

    def _place(self, state: np.ndarray) -> Mapping[str, Any]:
        sim = self._simulator.sim
        state = np.asarray(state, np.float64)
        expected = (1 + sim.model.nq + sim.model.nv,)
        if state.shape != expected or not np.isfinite(state).all():
            raise ValueError(f"state must be {expected[0]} finite numbers for this model, got shape {state.shape}")
        sim.set_state_from_flattened(state)
        sim.forward()
        for robot in self._simulator.robots:  # their poses and goals are still those of the drawn state
            robot.composite_controller.update_state()
            for arm in robot.arms:
                robot.part_controllers[arm].update(force=True)
            robot.composite_controller.reset()
        self._simulator.update_state()
        return self._simulator._get_observations(force_update=True)

    def _observation(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        result = {}
        for key, value in observation.items():
            if key == "object-state":
                result["object"] = self._object_state(observation)
            elif key.endswith("_image"):
                # OpenGL's first row is the lowest; before the first picture robosuite keeps zeros of another type
                result[key] = np.ascontiguousarray(value[::-1], dtype=np.uint8)
            elif not key.endswith("-state"):  # robosuite's other concatenations
                result[key] = np.atleast_1d(np.asarray(value, np.float32))
        return result

    def _make_object_state(self) -> ObjectState:
        observables = self._simulator._observables
        names = [name for name, o in observables.items() if o.modality == "object" and o.is_enabled() and o.is_active()]
        for name in poses_first(list(observables)):  # the order in which robosuite computes them
            observables.move_to_end(name)
        return ObjectState(names, as_before_1_5=self._recorded.is_before_1_5)

    def _make_action_space(self) -> Box:
        low, high = self._simulator.action_spec
        if self.actions == "absolute_pose":
            low, high = (np.split(bound.astype(np.float32), len(self.arms)) for bound in (low, high))
            for bounds, limit in ((low, -np.inf), (high, np.inf)):
                for arm in bounds:
                    arm[:6] = limit
            low, high = np.concatenate(low), np.concatenate(high)
        return Box(low.astype(np.float32), high.astype(np.float32))

    def _default_camera(self) -> str:
        names = self._simulator.sim.model.camera_names
        return "agentview" if "agentview" in names else names[0]


def _no_camera(name: str, camera: str, simulator: Any) -> ValueError:
    return ValueError(f"{name} has no camera {camera!r}: it has {', '.join(simulator.sim.model.camera_names)}")


def _space(value: np.ndarray) -> Box:
    if value.dtype == np.uint8:
        return Box(0, 255, value.shape, np.uint8)
    return Box(-np.inf, np.inf, value.shape, np.float32)


def _import_robosuite() -> Any:
    try:
        with importing_robosuite():
            import robosuite
    except ImportError as error:
        raise ImportError(
            f"this environment needs robosuite ({error}): install it with `pip install -e .[robosuite]`"
        ) from error
    return robosuite
