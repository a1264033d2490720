"""The policy: observation encoder, action head, objective and normalizer in one module."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from shortcut_policy.action_prefix import ActionPrefix, known_part, prefix_mask
from shortcut_policy.chunking import RecedingHorizon
from shortcut_policy.config import from_mapping, to_mapping
from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives import objective_class
from shortcut_policy.core.objectives.base import Batch, Objective, Sampler
from shortcut_policy.data.batches import WindowBatch
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.normalizer import Normalizer
from shortcut_policy.image_views import ViewDraw, draw_views, view
from shortcut_policy.nn.observation_encoder import ObservationEncoder
from shortcut_policy.nn.policy_network import PolicyNetwork
from shortcut_policy.policy_config import PolicyConfig
from shortcut_policy.pretrained import read_pretrained, write_pretrained
from shortcut_policy.vision_config import VisionConfig

if TYPE_CHECKING:
    from shortcut_policy.realtime.compiled_policy import CompiledPolicy


class Policy(nn.Module):
    """Maps observations to chunks of actions.

    Shapes: B batch, To observation steps, T horizon, A action channels, E channels of the environment's action.

    Args:
        config: what it is made of.
        normalizer: fitted on the training split; without one, the identity.
        fetch: whether image encoders that begin with published weights get them (and download them, the first time);
            otherwise they begin at random, to be given the weights of a checkpoint.
    """

    def __init__(self, config: PolicyConfig, normalizer: Normalizer | None = None, *, fetch: bool = False) -> None:
        super().__init__()
        self.config = config
        objective = objective_class(config.objective.name)
        self.objective: Objective = from_mapping(objective, config.objective.options, "objective.")
        self.network = PolicyNetwork(
            _make_encoder(config, fetch),
            config.action_dim,
            config.horizon,
            config.network.name,
            config.network.options,
            given_actions=config.prefix_steps > 0,
        )
        self.normalizer = normalizer or Normalizer(config.observation_dims, config.action_dim)
        self._queue: RecedingHorizon | None = None

    @classmethod
    def for_episodes(cls, episodes: Episodes, *, seed: int = 0, **config: object) -> Self:
        """A new policy for a data set: sizes and normalizer are taken from `episodes` (the training split).

        Args:
            seed: of the initial weights.
            config: fields of `PolicyConfig`, as objects or plain mappings. `vision` is that of policies with images:
                others are made without; `image_shapes` are given where images are not in RAM.
        """
        values = {
            "observation_dims": {key: array.shape[-1] for key, array in episodes.low_dim.items()},
            "image_shapes": episodes.image_shapes,
            "action_dim": episodes.actions.shape[-1],
            "action_codec": episodes.action_codec,
            **config,
        }
        values["vision"] = values.get("vision") or VisionConfig() if values["image_shapes"] else None
        built = from_mapping(PolicyConfig, values)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs as well
            return cls(built, Normalizer.fit(episodes, built.normalization), fetch=True)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.network.parameters()).device

    @property
    def action_dim(self) -> int:
        """E, channels of the environment's action."""
        return self.config.action_codec.decode(torch.zeros(self.config.action_dim)).shape[-1]

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(T, A): the shape of one row of noise."""
        return self.config.horizon, self.config.action_dim

    def with_network(self, network: nn.Module) -> Self:
        """The same policy with other weights, such as the network's EMA; everything else is shared."""
        view = copy.copy(self)
        view._modules = {**self._modules, "network": network}
        view._queue = None
        return view

    def draw_views(self, batch: int, generator: torch.Generator) -> ViewDraw | None:
        """Draw the crops and colours in which a whole batch of training sees its images.

        None where there are no images, or where their features were computed once.
        """
        if self.config.vision is None or self.config.vision.cache_features:
            return None
        return draw_views(self.config.vision, tuple(self.config.image_shapes), batch, generator)

    def draw_prefix(self, batch: int, generator: torch.Generator) -> Tensor | None:
        """Draw how many actions of every chunk in a batch of training are known: (B,) in 0 ... P; None where P = 0."""
        if not self.config.prefix_steps:
            return None
        return torch.randint(self.config.prefix_steps + 1, (batch,), generator=generator, device=generator.device)

    def prepare(self, windows: WindowBatch, views: ViewDraw | None = None, prefix: Tensor | None = None) -> Batch:
        """Normalise windows of the data set into a batch for the objective.

        Args:
            windows: B of them.
            views: how their images are seen; None as in sampling: the centre, in true colours.
            prefix: how many of their actions from now on are known, (B,), see `draw_prefix`; None for none.
        """
        data = self.normalizer.action(windows.action)
        condition = self.condition(windows.observation, views)
        loss_mask = ~windows.action_is_pad if self.config.mask_padding else None
        if prefix is not None:
            known = prefix_mask(prefix.to(data.device), self.config.horizon, -self.config.action_offset)
            condition |= known_part(data, known)
            loss_mask = ~known if loss_mask is None else loss_mask & ~known
        elif self.config.prefix_steps:
            condition |= self._known(self._prefix(None, None, len(data)))
        return Batch(data, condition, loss_mask=loss_mask)

    @torch.no_grad()
    def sample(
        self,
        observation: Mapping[str, Tensor],
        num_steps: int = 1,
        *,
        known_actions: Tensor | None = None,
        known_steps: Tensor | None = None,
        noise: Tensor | None = None,
        step_noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Sample chunks of actions as the environment takes them, in the data set's units.

        Args:
            observation: {key: (B, To, D)} in the data set's units, oldest first; anything `torch.as_tensor` takes.
                Images are (B, To, H, W, C) uint8, or the features that a frozen model made of them
                (`frozen_features.with_features`).
            num_steps: network evaluations.
            known_actions: (B, k, E) in the data's units, from now on: actions that are committed already and that the
                chunk is to continue; k is at most the policy's `prefix_steps`.
            known_steps: (B,), how many of these are known in every row, where it is not all of them.
            noise: (B, T, A) standard normal; drawn from `generator` (default: torch's) where it is not given. Sampling
                begins with `noise_scale` times it.
            step_noise: (n, B, T, A) for a sampler that re-noises n times on the way (`step_noises`); drawn likewise.
            generator: on the policy's device.

        Returns:
            (B, T', E): the action for the newest observation first, known ones as given. T' = T + action_offset;
            E is the width of the data set's actions, which is not A where the network sees them encoded.

        Raises:
            ValueError: an observation is missing, an observation or the noise has another shape than the policy's, or
                more actions are given as known than the policy can continue.
        """
        tensors = self._checked(observation)
        shape = (len(next(iter(tensors.values()))), *self.chunk_shape)
        if noise is None:
            noise = torch.randn(shape, generator=generator, device=self.device)
        elif noise.shape != shape:
            raise ValueError(f"noise must have shape {shape}, got {tuple(noise.shape)}")
        prefix = self._prefix(known_actions, known_steps, len(noise))
        sampler = self.objective.sampler(num_steps)
        if step_noise is None and sampler.step_noises:
            step_noise = torch.randn(sampler.step_noises, *shape, generator=generator, device=self.device)
        step_noise = None if step_noise is None else step_noise.to(self.device)
        return self.generate(tensors, sampler, noise.to(self.device), step_noise, prefix)

    def generate(
        self,
        observation: Mapping[str, Tensor],
        sampler: Sampler,
        noise: Tensor,
        step_noise: Tensor | None = None,
        prefix: ActionPrefix | None = None,
    ) -> Tensor:
        """What `sample` computes, as a pure function of tensors of the right shapes on the policy's device.

        It draws nothing, checks nothing and never waits for the device, so that it can be compiled, captured and
        exported; the sampler is the objective's, `prefix` holds the known actions, the other arguments and the result
        are those of `sample`.
        """
        prefix = prefix or self._prefix(None, None, noise.shape[0])
        predict = BoundNetwork(self.network, self.condition(observation) | self._known(prefix))
        start = noise if self.config.noise_scale is None else self.config.noise_scale * noise
        chunk = sampler(predict, start, step_noise)
        chunk = self.normalizer.action.inverse(chunk)[:, -self.config.action_offset :]
        chunk = self.config.action_codec.decode(chunk)
        return chunk if prefix is None else prefix.begin(chunk)

    def act(
        self, observation: Mapping[str, Tensor], num_steps: int = 1, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The next action (B, E) for the newest observations {key: (B, D) or (B, H, W, C)}, in receding horizon.

        A chunk is sampled when the previous one is used up (after `action_steps` actions) or after `reset`.

        Raises:
            ValueError: an observation is missing or has another shape than the policy's, or the number of slots changed
                without a reset.
        """
        if self._queue is None:
            self._queue = RecedingHorizon(self.config.observation_steps, self.config.action_steps)

        def sample(history: Mapping[str, Tensor], needed: Tensor) -> Tensor:
            return self.sample(history, num_steps, generator=generator)

        return self._queue.act(self.observation_tensors(observation), sample)

    def reset(self, mask: Tensor | None = None) -> None:
        """Begin new episodes in the slots where mask (B,) is true; in all of them without a mask."""
        if mask is None:
            self._queue = None
        elif self._queue is not None:
            self._queue.reset(mask)

    def compile(self, **options: Any) -> "CompiledPolicy":
        """The policy made ready to answer in time: see `CompiledPolicy`, whose options these are.

        To compile the network for a training, `policy.network.compile()`.
        """
        from shortcut_policy.realtime.compiled_policy import CompiledPolicy

        return CompiledPolicy(self, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint folder."""
        write_pretrained(Path(folder), "policy", to_mapping(self.config), self.state_dict())

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: torch.device | str = "cpu", *, noise_scale: float | None = None
    ) -> Self:
        """Load a checkpoint folder, for inference.

        Args:
            folder: of the checkpoint.
            device: where the policy shall run.
            noise_scale: in place of the checkpoint's.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: another version, or a damaged file; the noise's scale is out of range.
        """
        loaded = read_pretrained(folder, "policy")
        config = from_mapping(PolicyConfig, loaded.config, "config.")
        config = config if noise_scale is None else replace(config, noise_scale=noise_scale)
        with torch.random.fork_rng(devices=[]):  # for the weights that are replaced at once
            policy = cls(config)
        try:
            policy.load_state_dict(dict(loaded.tensors))
        except RuntimeError as error:
            raise ValueError(f"the weights in {folder} do not fit its config.json: {error}") from error
        return policy.to(device).eval().requires_grad_(False)

    def observation_tensors(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The observations that the policy sees, on its device: numbers as float32, images as uint8; others left out.

        Raises:
            ValueError: one is missing, or images are no bytes.
        """
        tensors = {}
        for key in self.config.observation_shapes:
            if key not in observation:
                known = ", ".join(self.config.observation_shapes)
                raise ValueError(f"observation {key!r} is missing: the policy was trained on {known}")
            is_image = key in self.config.image_shapes
            dtype = None if is_image else torch.float32
            tensors[key] = torch.as_tensor(observation[key], dtype=dtype, device=self.device)
            if is_image and tensors[key].dtype != torch.uint8 and not self._takes_features(tensors[key]):
                raise ValueError(
                    f"images {key!r} must be uint8 in 0 ... 255, as the policy was trained, got {tensors[key].dtype}: "
                    "convert them where they come from"
                )
        return tensors

    def condition(self, observation: Mapping[str, Tensor], views: ViewDraw | None = None) -> dict[str, Tensor]:
        """What the network is conditioned on: numbers normalised, images cropped, float and channels first.

        Args:
            observation: {key: (B, To, *shape)} as `observation_tensors` gives them.
            views: see `prepare`.
        """
        seen = self.normalizer.normalize_observation(observation)
        for key in self.config.image_shapes:
            if self._takes_features(observation[key]):
                seen[key] = observation[key]
                continue
            corner, color = (None, None) if views is None else (views.corner[key], views.color[key])
            seen[key] = view(observation[key], self.config.vision, corner, color)
        return seen

    def _checked(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Histories of observations as tensors, every shape verified."""
        tensors = self.observation_tensors(observation)
        for key, single in self.config.observation_shapes.items():
            if key in self.config.image_shapes and self._takes_features(tensors[key]):
                single = (self.network.encoder.encoder_of(key).num_features,)
            expected, shape = (self.config.observation_steps, *single), tuple(tensors[key].shape)
            if shape[1:] != expected:
                raise ValueError(
                    f"observation {key!r} must have shape (B, {', '.join(map(str, expected))}), got {shape}: rows, "
                    "observation_steps, and its shape in the data"
                )
        rows = {key: len(value) for key, value in tensors.items()}
        if len(set(rows.values())) > 1:
            raise ValueError(f"all observations must have the same number of rows, got {rows}")
        return tensors

    def _prefix(self, actions: Tensor | None, steps: Tensor | None, rows: int) -> ActionPrefix | None:
        """What `sample` was given as known, verified; None where P = 0, and then nothing may be known."""
        config = self.config
        if actions is None and steps is None and not config.prefix_steps:
            return None
        shape = (rows, config.prefix_steps, self.action_dim)
        prefix = ActionPrefix.checked(actions, steps, shape=shape, device=self.device)
        return prefix if config.prefix_steps else None

    def _known(self, prefix: ActionPrefix | None) -> Mapping[str, Tensor]:
        """What the condition holds of known actions."""
        if prefix is None:
            return {}
        config, now = self.config, -self.config.action_offset
        known = self.normalizer.action(config.action_codec.encode(prefix.actions))  # (B, P, A)
        chunk = functional.pad(known, (0, 0, now, config.horizon - now - config.prefix_steps))  # (B, T, A)
        return known_part(chunk, prefix_mask(prefix.steps, config.horizon, now))

    def _takes_features(self, images: Tensor) -> bool:
        """Whether these are a frozen model's features, (B, M) or (B, To, M), instead of images."""
        vision = self.config.vision
        return vision is not None and vision.cache_features and images.is_floating_point() and images.ndim < 4


def _make_encoder(config: PolicyConfig, fetch: bool) -> ObservationEncoder:
    vision = config.vision
    if vision is None:
        return ObservationEncoder(config.observation_dims, config.observation_steps)
    shapes = {key: (c, vision.cropped(h), vision.cropped(w)) for key, (h, w, c) in config.image_shapes.items()}
    return ObservationEncoder(
        config.observation_dims,
        config.observation_steps,
        shapes,
        vision.encoder.name,
        vision.shared,
        {**vision.encoder.options, **({"pretrained": False} if vision.encoder.name == "timm" and not fetch else {})},
    )
