"""Exported policies act as torch's do: every sampler, head and codec in onnxruntime, one package of AOTInductor."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from small_policy import demonstrations, small_policy
from torch import nn

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.realtime.chunk_module import ChunkModule
from shortcut_policy.realtime.export import write_checked
from shortcut_policy.realtime.export_aoti import export_aoti, load_aoti
from shortcut_policy.realtime.export_onnx import export_onnx, load_onnx

UNET = {"name": "unet1d", "options": {"widths": [4, 4], "step_embedding_dim": 4, "groups": 2, "kernel_size": 3}}
TRANSFORMER = {"name": "transformer", "options": {"width": 8, "depth": 1, "heads": 2, "step_embedding_dim": 4}}


class Bend(nn.Module):
    """A network in two lines, whose answer depends on all that it is given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -1.1]))

    def encode(self, condition):
        return torch.cat([value.flatten(1) for value in condition.values()], dim=1)  # (B, G)

    def forward(self, x, t, d, encoded):
        given = torch.sin(encoded).sum(dim=1) + 2.0 * t - 0.5 * d
        return torch.tanh(self.weight * x + given[:, None, None])


class Still(nn.Module):
    """A network whose flow stands still, so that the sample is the noise."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def encode(self, condition):
        return None

    def forward(self, x, t, d, encoded):
        return self.weight * x


def lively(policy):
    """The same policy, as if trained: what begins as zero would hide the rest."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy.eval()


def poses():
    """Demonstrations in absolute poses of one arm, encoded."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (26, 7)).astype(np.float32)
    return replace(demonstrations(), actions=actions).encoded(ActionCodec("absolute_pose"))


def with_images():
    low_dim, rng = demonstrations(), np.random.default_rng(1)
    images = {"front": rng.integers(256, size=(26, 10, 20, 3), dtype=np.uint8)}
    return Episodes({**low_dim.observations, **images}, low_dim.actions, low_dim.episode_ends, "a test")


def arrays(policy, draws, rows, seed=7):
    """Observations in the data's units, and noise."""
    rng, config = np.random.default_rng(seed), policy.config
    observation = {
        "position": rng.uniform(0, 512, (rows, 2, 2)).astype(np.float32),
        "angle": rng.uniform(-3, 3, (rows, 2, 1)).astype(np.float32),
    }
    for key, shape in config.image_shapes.items():
        observation[key] = rng.integers(256, size=(rows, 2, *shape), dtype=np.uint8)
    return observation, rng.standard_normal((draws, rows, *policy.chunk_shape)).astype(np.float32)


def torch_chunk(policy, observation, noise, num_steps):
    noise = torch.from_numpy(noise)
    return policy.sample(observation, num_steps, noise=noise[0], step_noise=noise[1:]).numpy()


@pytest.mark.parametrize(
    ("objective", "options", "num_steps", "draws"),
    [
        ("shortcut", {"base_steps": 8, "sigma_data": 0.5}, 1, 1),
        ("shortcut", {"base_steps": 8, "sigma_data": 0.5}, 4, 1),
        ("diffusion", {"prediction": "velocity"}, 1, 1),
        ("diffusion", {"prediction": "velocity"}, 4, 1),
        ("diffusion", {"sampling": "ddpm"}, 4, 4),
        ("consistency_training", {"base_steps": 8}, 1, 1),
        ("consistency_training", {"base_steps": 8}, 4, 4),
        ("regression", {}, 1, 1),
        ("regression", {}, 4, 1),
        ("minimum_iterative", {}, 1, 1),
        ("minimum_iterative", {}, 4, 1),
    ],
)
def test_every_sampler_runs_without_torch_as_with_it(tmp_path, objective, options, num_steps, draws):
    policy = small_policy(objective={"name": objective, "options": options}, action_offset=-1).with_network(Bend())
    exported = export_onnx(policy, tmp_path / "policy.onnx", num_steps, batch_size=None)
    assert exported.difference < 1e-5
    run = load_onnx(exported.path)
    for rows in (1, 5):
        observation, noise = arrays(policy, draws, rows)
        chunk = run(observation, noise)
        assert chunk.shape == (rows, 7, 2), "from the newest observation on"
        np.testing.assert_allclose(chunk, torch_chunk(policy, observation, noise, num_steps), rtol=1e-5)
    graph = onnx.load(exported.path).graph
    rows = {v.name: v.type.tensor_type.shape.dim[v.name == "noise"].dim_param for v in (*graph.input, *graph.output)}
    assert rows == dict.fromkeys(("position", "angle", "noise", "actions"), "batch")


@pytest.mark.parametrize(
    ("network", "episodes", "objective", "num_steps", "batch_size"),
    [
        (UNET, demonstrations, "shortcut", 1, 1),
        (TRANSFORMER, poses, "shortcut", 2, 2),
        (UNET, with_images, "flow_matching", 1, None),
    ],
)
def test_every_head_codec_and_camera_runs_without_torch_as_with_it(
    tmp_path, network, episodes, objective, num_steps, batch_size
):
    vision = {"encoder": {"name": "small_cnn", "options": {"widths": [8], "keypoints": 2, "feature_dim": 4}}}
    options = {"base_steps": 8} if objective == "shortcut" else {}
    policy = lively(
        small_policy(
            episodes=episodes(), network=network, objective={"name": objective, "options": options}, vision=vision
        )
    )
    exported = export_onnx(policy, tmp_path / "policy.onnx", num_steps, batch_size)
    assert exported.difference < 1e-5
    observation, noise = arrays(policy, 1, batch_size or 4)
    chunk, expected = load_onnx(exported.path)(observation, noise), torch_chunk(policy, observation, noise, num_steps)
    np.testing.assert_allclose(chunk, expected, rtol=1e-4, atol=1e-4)
    other = arrays(policy, 1, batch_size or 4, seed=8)
    for key in observation:
        changed = load_onnx(exported.path)({**observation, key: other[0][key]}, noise)
        assert not np.allclose(changed, chunk, rtol=1e-4), f"{key} counts"
    assert not np.allclose(load_onnx(exported.path)(observation, other[1]), chunk, rtol=1e-4), "and so does the noise"


def test_rotations_are_decoded_without_torch_wherever_formulas_are_delicate(tmp_path):
    """The noise stands for rot6d: no turn, hardly one, nearly half and half a turn, and rows that are no rotation."""
    policy = small_policy(episodes=poses(), horizon=8).with_network(Still())
    exported = export_onnx(policy, tmp_path / "policy.onnx")
    codec = policy.config.action_codec
    angles = [0.0, 1e-6, 1e-3, 1.0, math.pi - 1e-3]
    vectors = torch.tensor([[0.1, 0.2, 0.9, a * 0.36, a * -0.48, a * 0.8, 1.0] for a in angles])
    encoded = codec.encode(vectors)  # (5, 10)
    noise = torch.cat([encoded, encoded[2:]]).clone()  # (8, 10)
    noise[5, 3:9] = 0.0
    noise[6, 6:9] = 2 * noise[6, 3:6]  # parallel
    noise[7, 3:9] = torch.tensor([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0])  # half a turn about z
    noise = noise[None, None].numpy()
    observation, _ = arrays(policy, 1, 1)
    rotation = load_onnx(exported.path)(observation, noise)[0, :, 3:6]
    expected = torch_chunk(policy, observation, noise, 1)[0, :, 3:6]
    np.testing.assert_allclose(rotation[:5], vectors[:, 3:6], atol=1e-5)
    np.testing.assert_allclose(rotation[:7], expected[:7], atol=1e-5)
    np.testing.assert_allclose(np.abs(rotation[7]), [0.0, 0.0, math.pi], atol=1e-5)


def test_the_file_says_how_to_use_it_and_nothing_of_the_machine(tmp_path):
    policy = small_policy(
        objective={"name": "consistency_training"}, metadata={"task": "toy"}, episodes=with_images()
    ).with_network(Bend())
    exported = export_onnx(policy, tmp_path / "new" / "policy.onnx", num_steps=2, checkpoint_sha256="abc")
    model = onnx.load(exported.path)
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == {
        "format_version": 1,
        "task": "toy",
        "objective": "consistency_training",
        "num_steps": 2,
        "observations": {
            "position": {"shape": [2], "dtype": "float32"},
            "angle": {"shape": [1], "dtype": "float32"},
            "front": {"shape": [10, 20, 3], "dtype": "uint8"},
        },
        "observation_steps": 2,
        "noise_shape": [2, 8, 2],
        "noise_scale": None,
        "batch_size": 1,
        "action_steps": 3,
        "checkpoint_sha256": "abc",
    }
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "position": [1, 2, 2],
        "angle": [1, 2, 1],
        "front": [1, 2, 10, 20, 3],
        "noise": [2, 1, 8, 2],
        "actions": [1, 8, 2],
    }
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert b".py" not in exported.path.read_bytes()
    assert exported.bytes == exported.path.stat().st_size
    assert list(exported.path.parent.iterdir()) == [exported.path], "nothing else is left"


def test_a_policy_in_training_is_exported_for_inference_and_goes_on():
    policy = small_policy().train()
    module = ChunkModule(policy, 1)
    assert not any(part.training for part in module.policy.modules())
    assert all(part.training for part in policy.modules())
    assert all(weight.requires_grad for weight in policy.network.parameters())


@pytest.mark.parametrize("wrong", [lambda chunk: chunk + 0.5, lambda chunk: chunk * np.nan])
def test_a_file_that_acts_otherwise_is_not_kept_and_the_older_one_is(tmp_path, wrong):
    policy, target = small_policy().with_network(Bend()), tmp_path / "policy.onnx"
    target.write_text("older")

    def write(acts):
        return write_checked(
            target,
            ChunkModule(policy, 1),
            write=lambda path: path.write_text("newer") and None,
            load=lambda path: lambda observation, noise: acts(torch_chunk(policy, observation, noise, 1)),
            batch=1,
            tolerance=0.001,
        )

    with pytest.raises(ValueError, match=r"differ from torch's by .* of their range, more than tolerance=0.001"):
        write(wrong)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]
    assert write(lambda chunk: chunk).bytes == len("newer")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["newer"]


def test_onnx_files_are_held_to_the_tolerance(tmp_path, monkeypatch):
    """As onnxruntime runs them: here it is half a unit off."""
    honest = load_onnx
    monkeypatch.setattr(
        "shortcut_policy.realtime.export_onnx.load_onnx",
        lambda path: lambda observation, noise: honest(path)(observation, noise) + 0.5,
    )
    with pytest.raises(ValueError, match=r"more than tolerance=0.002"):
        export_onnx(small_policy().with_network(Bend()), tmp_path / "policy.onnx", tolerance=0.002)
    assert list(tmp_path.iterdir()) == []


def test_differences_are_shares_of_the_range_of_the_data():
    policy = small_policy().with_network(Bend())
    module = ChunkModule(policy, 1)
    half = 1 / policy.normalizer.action.scale.numpy()  # of the range of every channel

    def off_by_a_tenth(observation, noise):
        chunk = torch_chunk(policy, observation, noise, 1)
        chunk[:, 3] += 0.2 * half * np.array([1.0, 0.5], np.float32)
        return chunk

    assert module.largest_difference(off_by_a_tenth, batch=2) == pytest.approx(0.1, rel=1e-3)


def test_the_two_vectors_of_half_a_turn_are_no_difference():
    policy = small_policy(episodes=poses()).with_network(Still())

    def turned(observation, noise):
        """The same rotations by the other way round."""
        chunk = torch_chunk(policy, observation, noise, 1)
        vector = chunk[..., 3:6]
        angle = np.linalg.norm(vector, axis=-1, keepdims=True)
        chunk[..., 3:6] = vector * (angle - 2 * math.pi) / angle
        return chunk

    assert ChunkModule(policy, 1).largest_difference(turned, batch=2) < 1e-6


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("policy.pt", {}, ValueError, r"must be called something.onnx, got '.*policy.pt'"),
        ("there.onnx", {}, FileExistsError, "there.onnx exists already: choose another name or say overwrite=true"),
        ("policy.onnx", {"num_steps": 0}, ValueError, "num_steps.*0"),
        ("policy.onnx", {"batch_size": 0}, ValueError, "batch_size must be positive, or null for any, got 0"),
    ],
)
def test_what_cannot_be_exported_to_onnx_is_refused(tmp_path, name, options, error, message):
    (tmp_path / "there.onnx").touch()
    with pytest.raises(error, match=message):
        export_onnx(small_policy(), tmp_path / name, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_observations_with_the_name_of_another_tensor_are_refused(tmp_path):
    episodes = demonstrations()
    renamed = replace(episodes, observations={"noise": episodes.observations["angle"]})
    with pytest.raises(ValueError, match="observation 'noise' cannot be exported"):
        export_onnx(small_policy(episodes=renamed), tmp_path / "policy.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_says_which_extra_has_it(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"need onnx, onnxscript and onnxruntime \(.*{package}.*\[export\]"):
        export_onnx(small_policy(), tmp_path / "policy.onnx")


@pytest.mark.parametrize("load", [load_onnx, load_aoti])
def test_a_missing_file_is_named(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_a_package_of_native_code_acts_as_the_policy(tmp_path):
    policy = lively(small_policy(network=UNET, episodes=poses(), metadata={"task": "toy"}))
    exported = export_aoti(policy, tmp_path / "policy.pt2", checkpoint_sha256="abc")
    assert exported.difference < 1e-5
    assert list(tmp_path.iterdir()) == [exported.path]
    run = load_aoti(exported.path)
    observation, noise = arrays(policy, 1, 1)
    chunk = run(dict(reversed(observation.items())), noise)  # named, not in an order
    np.testing.assert_allclose(chunk, torch_chunk(policy, observation, noise, 1), rtol=1e-4, atol=1e-5)
    metadata = torch._inductor.aoti_load_package(str(exported.path)).get_metadata()
    expected = ChunkModule(policy, 1).metadata(batch_size=1, checkpoint_sha256="abc")
    assert {name: json.loads(metadata[name]) for name in expected} == expected
    for wrong, message in (
        ((observation | {"angle": observation["angle"].astype(np.float64)}, noise), "'angle' must be float32"),
        ((observation, noise[:, :, :4]), r"'noise' must be float32 of shape \(1, 1, 8, 10\), got float32 of"),
    ):
        with pytest.raises(ValueError, match=message):
            run(*wrong)


def test_without_a_compiler_native_code_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler, and there is no .*: install g\+\+"):
        export_aoti(small_policy(), tmp_path / "policy.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "batch_size", "message"),
    [("policy.onnx", 1, "something.pt2"), ("policy.pt2", 0, "positive number, got 0")],
)
def test_what_cannot_be_compiled_is_refused(tmp_path, name, batch_size, message):
    with pytest.raises(ValueError, match=message):
        export_aoti(small_policy(), tmp_path / name, batch_size=batch_size)
