"""Policies that see: what they are shown, in training and afterwards, and how often it is encoded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from small_policy import demonstrations, small_policy

from shortcut_policy import Trainer, TrainerConfig
from shortcut_policy.agent import PolicyAgent
from shortcut_policy.config import from_mapping
from shortcut_policy.core.objectives import objective_class
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.windows import make_windows
from shortcut_policy.frozen_features import with_features
from shortcut_policy.nn.image_encoders import make_image_encoder
from shortcut_policy.policy import Policy
from shortcut_policy.policy_batches import PolicyBatches
from shortcut_policy.training.loss_module import LossModule
from shortcut_policy.vision_config import VisionConfig

VISION_PRESETS = Path(__file__).parents[1] / "configs" / "vision"
FROZEN = {"model": "resnet18", "pretrained": False, "frozen": True, "feature_dim": 4, "image_size": 32}
VISION = {
    "encoder": {"name": "small_cnn", "options": {"widths": [8], "keypoints": 2, "feature_dim": 4}},
    "crop": 0.8,
    "brightness": 0.2,
}


def with_images() -> Episodes:
    low_dim, rng = demonstrations(), np.random.default_rng(1)
    images = {
        "front": rng.integers(256, size=(26, 10, 20, 3), dtype=np.uint8),
        "wrist": rng.integers(256, size=(26, 8, 8, 1), dtype=np.uint8),
    }
    return Episodes({**low_dim.observations, **images}, low_dim.actions, low_dim.episode_ends, "a test")


def seeing_policy(**config) -> Policy:
    return small_policy(episodes=with_images(), **{"vision": VISION} | config)


def make_windows_of(episodes, batch_size=26):
    windows = make_windows(episodes.episode_ends, observation_steps=2, horizon=8)
    return WindowBatches(episodes, windows, batch_size)


def observe(rows=3):
    return dict(make_windows_of(with_images()).windows(torch.arange(rows)).observation)


def noise(rows=3):
    return torch.randn(rows, 8, 2, generator=torch.Generator().manual_seed(0))


def test_images_and_numbers_are_told_apart_by_the_data():
    config = seeing_policy().config
    assert dict(config.observation_dims) == {"position": 2, "angle": 1}
    assert dict(config.image_shapes) == {"front": (10, 20, 3), "wrist": (8, 8, 1)}
    assert config.observation_shapes == {"position": (2,), "angle": (1,), "front": (10, 20, 3), "wrist": (8, 8, 1)}
    assert small_policy(vision=VISION).config.vision is None, "there is nothing to be seen"


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_every_camera_counts_in_the_middle_and_not_beyond_the_crop(camera):
    policy, observation = seeing_policy(), observe()
    before = policy.sample(observation, noise=noise())
    assert before.shape == (3, 8, 2)
    beyond, within = observation[camera].clone(), observation[camera].clone()
    beyond[:, :, 0] ^= 255
    within[:, :, 4] ^= 255
    assert torch.equal(policy.sample({**observation, camera: beyond}, noise=noise()), before)
    assert not torch.equal(policy.sample({**observation, camera: within}, noise=noise()), before)


def test_a_saved_policy_sees_the_same(tmp_path):
    policy = seeing_policy()
    policy.save_pretrained(tmp_path / "policy")
    loaded = Policy.from_pretrained(tmp_path / "policy")
    assert loaded.config == policy.config
    assert torch.equal(loaded.sample(observe(), noise=noise()), policy.sample(observe(), noise=noise()))


def test_acting_remembers_images_as_bytes():
    policy, seen = seeing_policy(action_steps=1), []
    generate = policy.generate

    def record(observation, *others):
        seen.append(observation["front"])
        return generate(observation, *others)

    policy.generate = record
    frames = with_images().observations
    agent = PolicyAgent(policy, slots=2, num_steps=1)
    agent.reset([0, 1])
    for step in range(3):
        agent.act({key: values[[step, 10 + step]] for key, values in frames.items()})
    assert all(images.dtype == torch.uint8 for images in seen)
    for images, steps in zip(seen, ([0, 0], [0, 1], [1, 2]), strict=True):
        assert torch.equal(images[0], torch.from_numpy(frames["front"][steps]))
        assert torch.equal(images[1], torch.from_numpy(frames["front"][10 + np.array(steps)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front": torch.rand(3, 2, 10, 20, 3)}, "'front' must be uint8 in 0 ... 255, .* got torch.float32: convert"),
        ({"front": torch.zeros(3, 2, 3, 10, 20, dtype=torch.uint8)}, r"must have shape \(B, 2, 10, 20, 3\), got"),
        ({"wrist": torch.zeros(2, 2, 8, 8, 1, dtype=torch.uint8)}, "must have the same number of rows"),
    ],
)
def test_images_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        seeing_policy().sample({**observe(), **change})


def test_a_missing_camera_is_named():
    observation = observe()
    del observation["wrist"]
    with pytest.raises(ValueError, match=r"observation 'wrist' is missing: .* position, angle, front, wrist"):
        seeing_policy().sample(observation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shapes": {"angle": (4, 4, 3)}}, "observation 'angle' cannot be both numbers and an image"),
        ({"image_shapes": {"front": (0, 4, 3)}}, "at least one channel, got .* and images"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        seeing_policy(**changes)


def test_training_sees_new_crops_at_every_step_and_the_same_when_asked_again():
    policy = seeing_policy()
    batches = PolicyBatches(policy, make_windows_of(with_images()), seed=3)
    first, second = batches(0), batches(1)
    again = PolicyBatches(policy, make_windows_of(with_images()), seed=3)
    second_again, first_again = again(1), again(0)
    for one, other in ((first, first_again), (second, second_again)):
        assert all(torch.equal(one.condition[key], other.condition[key]) for key in one.condition)
    assert first.condition["front"].shape == (26, 2, 3, 8, 16)
    other_seed = PolicyBatches(policy, make_windows_of(with_images()), seed=4)(0)
    centre = policy.prepare(make_windows_of(with_images()).batch(0))
    for other in (other_seed, centre):
        assert not torch.equal(first.condition["front"], other.condition["front"])


def test_the_rows_of_a_micro_batch_are_those_of_the_whole():
    batches = PolicyBatches(seeing_policy(), make_windows_of(with_images(), 12))
    whole, part = batches(5), batches(5, slice(4, 9))
    for key, values in whole.condition.items():
        assert torch.equal(part.condition[key], values[4:9])
    assert torch.equal(part.data, whole.data[4:9])


@pytest.mark.parametrize(
    ("name", "options", "times"),
    [
        ("shortcut", {"base_steps": 8}, {"network": 1, "target": 1}),
        ("shortcut", {"base_steps": 8, "bootstrap_teacher": "online"}, {"network": 1}),
        ("progressive_self_distillation", {"teacher": "online"}, {"network": 1}),
        ("consistency_training", {"target": "online"}, {"network": 1}),
        ("live_reflow", {"teacher": "online", "pair_steps": 2}, {"network": 1}),
        ("mean_flow", {}, {"network": 1}),
        ("flow_matching", {}, {"network": 1}),
    ],
)
def test_images_are_encoded_once_for_every_batch_and_network(name, options, times):
    policy, target = seeing_policy(), seeing_policy()
    seen = {"network": [], "target": []}
    for which, network in (("network", policy.network), ("target", target.network)):
        for encoder in network.encoder.images.values():
            encoder.register_forward_hook(lambda module, inputs, output, which=which: seen[which].append(output))
    times = {which: 2 * count for which, count in times.items()}  # there are two cameras, each with its encoder
    objective = objective_class(name)(**options)
    batch = PolicyBatches(policy, make_windows_of(with_images()))(0)
    draw = objective.draw(batch.data.shape, 0.5, torch.Generator().manual_seed(0))
    loss, _ = LossModule(policy.network, target.network, None)(objective, batch, draw)
    loss.backward()
    assert {which: len(calls) for which, calls in seen.items() if calls} == times
    assert all(parameter.grad is not None for parameter in policy.network.encoder.parameters())
    assert all(parameter.grad is None for parameter in target.network.parameters())


def test_compiling_the_network_compiles_its_eyes():
    policy, compiled = seeing_policy(), seeing_policy()
    compiled.network.compile(backend="eager")
    assert all(encoder._compiled_call_impl is not None for encoder in compiled.network.encoder.images.values())
    torch.testing.assert_close(compiled.sample(observe(), noise=noise()), policy.sample(observe(), noise=noise()))


@pytest.mark.parametrize("said", [{"pretrained": True}, {}])
def test_a_checkpoint_never_fetches_what_its_encoder_once_began_with(tmp_path, monkeypatch, said):
    timm = pytest.importorskip("timm")
    create, asked = timm.create_model, []

    def record(model, pretrained, **options):
        asked.append(pretrained)
        return create(model, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", record)
    options = {"model": "resnet18", "frozen": True, "feature_dim": 4, **said}
    rng = np.random.default_rng(0)
    low_dim = demonstrations()
    images = {"front": rng.integers(256, size=(26, 10, 20, 3), dtype=np.uint8)}
    episodes = Episodes({**low_dim.observations, **images}, low_dim.actions, low_dim.episode_ends, "a test")
    policy = small_policy(episodes=episodes, vision={"encoder": {"name": "timm", "options": options}}).eval()
    policy.save_pretrained(tmp_path / "policy")
    loaded = Policy.from_pretrained(tmp_path / "policy")
    assert asked == [True, False]
    assert loaded.config == policy.config
    observation = dict(make_windows_of(episodes).windows(torch.arange(3)).observation)
    assert torch.equal(loaded.sample(observation, noise=noise()), policy.sample(observation, noise=noise()))


def frozen_policy(episodes):
    pytest.importorskip("timm")
    vision = {"encoder": {"name": "timm", "options": FROZEN}, "crop": 0.8, "cache_features": True}
    policy = small_policy(episodes=episodes, vision=vision)
    policy.network.train()
    return policy


def seen_from_the_front():
    low_dim, images = demonstrations(), np.random.default_rng(0).integers(256, size=(26, 10, 20, 3), dtype=np.uint8)
    observations = {**low_dim.observations, "front": images}
    return Episodes(observations, low_dim.actions, low_dim.episode_ends, "a test")


def test_features_of_a_frozen_model_stand_in_for_its_images():
    episodes = seen_from_the_front()
    policy = frozen_policy(episodes)
    cached = with_features(policy, episodes, batch_size=7)
    assert cached.observations["front"].shape == (26, 512)
    assert cached.observations["front"].dtype == np.float32
    windows = [make_windows_of(each).windows(torch.arange(5)) for each in (episodes, cached)]
    by_images, by_features = (policy.sample(each.observation, noise=noise(5)) for each in windows)
    torch.testing.assert_close(by_features, by_images, rtol=1e-4, atol=1e-2)  # pixels; in batches of another size
    other = policy.sample({**windows[1].observation, "front": 1 + windows[1].observation["front"]}, noise=noise(5))
    assert (other - by_features).abs().max() > 0.1, "they count"


def test_a_training_on_features_never_runs_the_frozen_model():
    episodes = seen_from_the_front()
    policy = frozen_policy(episodes)
    batches = PolicyBatches(policy, make_windows_of(with_features(policy, episodes)))
    encoder = policy.network.encoder.encoder_of("front")
    encoder.model.register_forward_hook(lambda *_: pytest.fail("the frozen model ran"))
    batch, objective = batches(0), objective_class("flow_matching")()
    draw = objective.draw(batch.data.shape, 0.5, torch.Generator().manual_seed(0))
    LossModule(policy.network, None, None)(objective, batch, draw)[0].backward()
    assert encoder.output.weight.grad.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front": torch.zeros(3, 2, 511)}, r"observation 'front' must have shape \(B, 2, 512\), got \(3, 2, 511\)"),
        ({"front": torch.zeros(3, 2, 10, 20, 3)}, r"images 'front' must be uint8 in 0 ... 255, .* got torch.float32"),
    ],
)
def test_features_that_do_not_fit_are_refused(change, message):
    policy = frozen_policy(seen_from_the_front())
    with pytest.raises(ValueError, match=message):
        policy.sample({**observe(), **change})


def test_an_environment_that_gives_float_images_is_told_so():
    policy = frozen_policy(seen_from_the_front())
    newest = {key: values[:, -1] for key, values in observe().items()}
    with pytest.raises(ValueError, match=r"images 'front' must be uint8 in 0 ... 255, .* got torch.float32"):
        policy.act({**newest, "front": newest["front"] / 255})


def test_features_are_those_of_a_frozen_encoder():
    with pytest.raises(ValueError, match=r"features are those of a policy with vision.cache_features=true"):
        with_features(seeing_policy(), with_images())


@pytest.mark.parametrize("preset", sorted(path.stem for path in VISION_PRESETS.glob("*.yaml")))
def test_every_preset_takes_images_of_the_tasks(preset):
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    config = from_mapping(VisionConfig, OmegaConf.to_container(OmegaConf.load(VISION_PRESETS / f"{preset}.yaml")))
    options = dict(config.encoder.options)
    if "pretrained" in options:
        options["pretrained"] = False  # nothing is downloaded here
    shape = (3, config.cropped(96), config.cropped(96))
    encoder = make_image_encoder(config.encoder.name, shape, options).eval()
    with torch.no_grad():
        assert encoder(torch.rand(2, *shape)).shape == (2, encoder.output_dim)


@pytest.mark.parametrize(
    "vision",
    [
        VISION,
        {"encoder": {"name": "timm", "options": FROZEN}, "brightness": 0.2},
        {"encoder": {"name": "timm", "options": FROZEN}, "cache_features": True},
    ],
)
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(tmp_path, vision):
    pytest.importorskip("timm")
    episodes = seen_from_the_front()

    def train(folder, killed_at=None):
        policy = small_policy(episodes=episodes, vision=vision)
        data = with_features(policy, episodes) if policy.config.vision.cache_features else episodes
        batches = PolicyBatches(policy, make_windows_of(data, 8))

        def next_batch(step, rows):
            if step == killed_at:
                raise KeyboardInterrupt
            return batches(step, rows)

        Trainer(
            policy.network,
            policy.objective,
            next_batch,
            TrainerConfig(steps=4, batch_size=8, checkpoint_every=1, progress=False),
            output=folder,
            save_model=lambda path, ema: policy.with_network(ema).save_pretrained(path),
        ).run()
        return policy.network.state_dict()

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", killed_at=2)
    resumed, whole = train(tmp_path / "killed"), train(tmp_path / "whole")
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
