"""Compatibility with the paper's code: its own numbers, and a computation in numpy that knows neither torch nor us."""

import collections
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from image_gen.dit import DiT
from image_gen.official_checkpoint import read_official_checkpoint
from image_gen.official_weights import convert_weights, official_sizes
from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.shortcut import Shortcut, ShortcutDraw

PAPER = Shortcut(
    base_steps=128,
    bootstrap_fraction=1 / 8,
    flow_step="smallest",
    flow_times="grid",
    levels="official",
    sigma_min=1e-5,
    clip=4.0,
    condition_dropout=0.1,
)


def official_forward(params, x, t, level, labels, heads):
    """The official network in float64: x (B, H, W, C), t in [0, 1], integer levels -> (B, H, W, C)."""
    p = {name: value.astype(np.float64) for name, value in params.items()}

    def dense(name, h):
        return h @ p[f"{name}/kernel"] + p[f"{name}/bias"]

    def silu(h):
        return h / (1 + np.exp(-h))

    def norm(h):
        return (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)

    def embed(name, values):
        angles = values[:, None] * np.exp(-np.log(10_000) * np.arange(128) / 128)
        return dense(
            f"{name}/Dense_1", silu(dense(f"{name}/Dense_0", np.concatenate([np.cos(angles), np.sin(angles)], 1)))
        )

    kernel = p["PatchEmbed_0/Conv_0/kernel"]
    patch, _, channels, width = kernel.shape
    rows, side = len(x), x.shape[1] // patch
    cut = x.reshape(rows, side, patch, side, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    h = cut.reshape(rows, side * side, -1) @ kernel.reshape(-1, width) + p["PatchEmbed_0/Conv_0/bias"]
    omega = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(side * side), side)
    h = h + np.concatenate([f(place[:, None] * omega) for place in (column, row) for f in (np.sin, np.cos)], 1)

    label = p["LabelEmbedder_0/Embed_0/embedding"][labels]
    condition = silu(embed("TimestepEmbedder_0", t) + embed("TimestepEmbedder_1", level) + label)[:, None]
    for number in range(sum(name.endswith("MlpBlock_0/Dense_0/kernel") for name in p)):
        block = f"DiTBlock_{number}"
        shift, scale, gate, shift_m, scale_m, gate_m = np.split(dense(f"{block}/Dense_0", condition), 6, -1)
        z = norm(h) * (1 + scale) + shift
        k, q, v = (dense(f"{block}/Dense_{i}", z).reshape(rows, -1, heads, width // heads) for i in (1, 2, 3))
        logits = np.einsum("bnhc,bmhc->bhnm", q / (width // heads), k)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed = np.einsum("bhnm,bmhc->bnhc", weights / weights.sum(-1, keepdims=True), v)
        h = h + gate * dense(f"{block}/Dense_4", mixed.reshape(rows, -1, width))
        z = dense(f"{block}/MlpBlock_0/Dense_0", norm(h) * (1 + scale_m) + shift_m)
        z = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        h = h + gate_m * dense(f"{block}/MlpBlock_0/Dense_1", z)
    shift, scale = np.split(dense("FinalLayer_0/Dense_0", condition), 2, -1)
    out = dense("FinalLayer_0/Dense_1", norm(h) * (1 + scale) + shift).reshape(rows, side, side, patch, patch, channels)
    return out.transpose(0, 1, 3, 2, 4, 5).reshape(rows, side * patch, side * patch, channels)


def random_params(seed=0, width=16, depth=2, channels=3, classes=5, patch=2):
    """Weights of the official network under its names, none of them zero."""
    rng = np.random.default_rng(seed)
    shapes = {"PatchEmbed_0/Conv_0": (patch, patch, channels, width), "FinalLayer_0/Dense_0": (width, 2 * width)}
    shapes |= {"FinalLayer_0/Dense_1": (width, patch * patch * channels)}
    for number in (0, 1):
        shapes |= {f"TimestepEmbedder_{number}/Dense_0": (256, width)}
        shapes |= {f"TimestepEmbedder_{number}/Dense_1": (width, width)}
    for number in range(depth):
        block = f"DiTBlock_{number}"
        shapes |= {f"{block}/Dense_0": (width, 6 * width)} | {f"{block}/Dense_{i}": (width, width) for i in range(1, 5)}
        shapes |= {f"{block}/MlpBlock_0/Dense_0": (width, 4 * width), f"{block}/MlpBlock_0/Dense_1": (4 * width, width)}
    params = {"LabelEmbedder_0/Embed_0/embedding": rng.normal(size=(classes + 1, width))}
    for name, shape in shapes.items():
        params[f"{name}/kernel"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        params[f"{name}/bias"] = 0.1 * rng.normal(size=shape[-1])
    return {name: value.astype(np.float32) for name, value in params.items()}


def build(params, size, heads):
    """Our network with the official weights, in float64 as far as its sinusoids go."""
    sizes = official_sizes(params, heads)
    network = DiT(sizes["channels"], size, sizes["num_classes"], **sizes["network"])
    network.load_state_dict(convert_weights(params))
    return network.double()


def channels_first(images):
    return torch.from_numpy(np.asarray(images, dtype=np.float64)).permute(0, 3, 1, 2)


def group(archive, prefix):
    return {name.removeprefix(prefix): archive[name] for name in archive.files if name.startswith(prefix)}


def test_the_network_is_the_official_one_computed_in_numpy():
    params, rng = random_params(), np.random.default_rng(1)
    x, t, level, labels = rng.normal(size=(4, 8, 8, 3)), rng.random(4), np.array([0, 3, 5, 7]), np.array([0, 2, 5, 4])
    network = build(params, 8, heads=2)
    with torch.no_grad():
        ours = network(
            channels_first(x),
            torch.from_numpy(t),
            torch.exp2(-torch.from_numpy(level).double()),
            network.encode(torch.from_numpy(labels)),
        )
    expected = official_forward(params, x, t, level.astype(np.float64), labels, heads=2)
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1), expected, atol=5e-6)  # float32 sinusoids


def test_the_network_gives_the_official_numbers(real_data):
    archive = np.load(real_data("parity/dit_f32_strong.npz"), allow_pickle=False)
    params, x, t, y = group(archive, "params/"), archive["x"], archive["t"], archive["y"]
    network = build(params, 8, heads=4)
    expected = archive["ignore_dt_False/output_jit_by_dt_level"]
    for level in range(8):
        d = torch.full((len(x),), 2.0**-level, dtype=torch.float64)
        with torch.no_grad():
            out = network(
                channels_first(x), torch.from_numpy(t).double(), d, network.encode(torch.from_numpy(y).long())
            )
        np.testing.assert_allclose(out.permute(0, 2, 3, 1), expected[level], atol=3e-5)
        levels = np.full(len(x), float(level))
        np.testing.assert_allclose(
            official_forward(params, x, t.astype(np.float64), levels, y, heads=4), expected[level], atol=3e-5
        )


@pytest.mark.parametrize(("file", "guidance"), [("nocfg", 1.0), ("cfg", 1.5)])
def test_the_objective_gives_the_official_targets(real_data, file, guidance):
    archive = np.load(real_data(f"parity/targets_shortcut_{file}.npz"), allow_pickle=False)
    params = group(np.load(real_data("parity/targets_params.npz"), allow_pickle=False), "ema/")
    count = int(archive["num_bootstrap"])
    levels, bootstrap = archive["dt_base"][:count], np.arange(64) < count
    # the official bootstrap rows repeat the first images, and the last ones go unused; their noise is another
    assert not np.isclose(archive["x0_bootstrap"], archive["x0_flow"][:count], atol=1e-3).all(axis=(1, 2, 3)).any()
    used = np.concatenate([np.arange(count), np.arange(64 - count)])
    flow = used[count:]
    draw = ShortcutDraw(
        noise=channels_first(np.concatenate([archive["x0_bootstrap"], archive["x0_flow"][flow]])),
        t=torch.from_numpy(
            np.concatenate([archive["t_int_bootstrap"] / 2.0**levels, archive["t_int_flow"][flow] / 128])
        ),
        d=torch.from_numpy(np.concatenate([2.0**-levels, np.full(64 - count, 1 / 128)])),
        drop=torch.from_numpy(archive["label_drop_mask"][used] & ~bootstrap),
        bootstrap=torch.from_numpy(bootstrap),
    )
    labels = torch.from_numpy(archive["labels"][used]).long()
    data = Batch(channels_first(archive["images"][used]), labels, torch.full_like(labels, 10))
    asked = {}

    class Answer(torch.nn.Module):
        """A student that has learned the official targets: its loss is their distance to ours."""

        def encode(self, condition):
            return condition

        def forward(self, x, t, d, encoded):
            asked.update(x=x, t=t, d=d, labels=encoded)
            return channels_first(archive["v_t"])

    teacher = BoundNetwork(build(params, 8, heads=4), data.condition, data.null_condition)
    nets = Networks(BoundNetwork(Answer(), data.condition, data.null_condition), target=teacher)
    objective = Shortcut(**{**vars(PAPER), "bootstrap_guidance": guidance})
    loss = objective.loss(nets, data, draw)

    np.testing.assert_allclose(asked["x"].permute(0, 2, 3, 1), archive["x_t"], atol=1e-5)
    np.testing.assert_allclose(asked["t"], archive["t"], atol=1e-7)
    np.testing.assert_allclose(-torch.log2(asked["d"]), archive["dt_base"])
    np.testing.assert_array_equal(asked["labels"], archive["labels_dropped"])
    assert loss.per_row.sqrt().max() < 1e-5


def test_the_levels_are_laid_out_as_officially(real_data):
    archive = np.load(real_data("parity/targets_shortcut_nocfg.npz"), allow_pickle=False)
    draw = PAPER.draw(torch.Size((64, 4, 8, 8)), 0.0, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(-torch.log2(draw.d[draw.bootstrap]), archive["dt_base"][:8])
    assert (draw.d[~draw.bootstrap] == 1 / 128).all()


@pytest.mark.parametrize(("steps", "scale"), [(1, 0), (1, 1), (1, 1.5), (2, 1.5), (4, 0), (4, 1), (4, 1.5), (128, 1.5)])
def test_sampling_gives_the_official_samples(real_data, steps, scale):
    archive = np.load(real_data("parity/sampling_shortcut.npz"), allow_pickle=False)
    params = group(np.load(real_data("parity/targets_params.npz"), allow_pickle=False), "online/")
    labels = torch.from_numpy(archive["labels"]).long()
    bound = BoundNetwork(build(params, 8, heads=4), labels, torch.full_like(labels, 10))
    with torch.no_grad():
        sample = PAPER.sampler(steps)(bound.guided(float(scale)), channels_first(archive["x0"]))
    np.testing.assert_allclose(sample.permute(0, 2, 3, 1), archive[f"T{steps}_cfg{scale}/x1"], atol=1e-5)


def test_an_official_checkpoint_is_read(real_data):
    read = read_official_checkpoint(real_data("parity/official_checkpoint.pkl"))
    assert read.params.keys() == read.params_ema.keys()
    assert read.step > 0
    build(read.params_ema, 8, heads=4)


def as_pickle(tmp_path, content):
    path = tmp_path / "checkpoint.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def nested(params):
    tree = {}
    for name, value in params.items():
        *parents, leaf = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return tree


def test_containers_of_optax_and_arrays_of_jax_are_read_without_them(tmp_path, monkeypatch):
    state = collections.namedtuple("ScaleByAdamState", "count mu nu")
    state.__module__ = "optax._src.transform"
    modules = {name: types.ModuleType(name) for name in ("optax", "optax._src", "optax._src.transform")}
    modules["optax._src.transform"].ScaleByAdamState = state
    modules |= {name: types.ModuleType(name) for name in ("jax", "jax._src", "jax._src.array")}

    def reconstruct(make, arguments, array_state, aval):
        raise AssertionError("ours must be called")

    reconstruct.__module__, reconstruct.__qualname__ = "jax._src.array", "_reconstruct_array"
    modules["jax._src.array"]._reconstruct_array = reconstruct

    class JaxArray:
        def __init__(self, value):
            self.value = value

        def __reduce__(self):
            make, arguments, array_state = self.value.__reduce__()
            return reconstruct, (make, arguments, array_state, {"weak_type": False})

    params = random_params()
    tree = nested({name: JaxArray(value) for name, value in params.items()})
    with monkeypatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        content = {
            "train_state": {
                "params": tree,
                "params_ema": nested(params),
                "opt_state": (state(np.int32(7), nested(params), nested(params)),),
                "step": np.int32(7),
            }
        }
        path = as_pickle(tmp_path, content)
    read = read_official_checkpoint(path)
    assert read.step == 7
    for name, value in params.items():
        np.testing.assert_array_equal(read.params[name], value)


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train_state": Malicious()}, r"asks for builtins\.print"),
        ({"train_state": {"params": {}}}, "no checkpoint of the official code"),
        ([1, 2], "no checkpoint of the official code"),
        ({"train_state": {"params": {"a": np.array("text")}, "params_ema": {}, "step": 1}}, "not numbers"),
    ],
)
def test_anything_else_is_refused(tmp_path, capsys, content, message):
    with pytest.raises(ValueError, match=message):
        read_official_checkpoint(as_pickle(tmp_path, content))
    assert "executed" not in capsys.readouterr().out


def test_a_damaged_file_is_refused(tmp_path):
    path = as_pickle(tmp_path, {"train_state": np.zeros(100)})
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(ValueError, match="truncated"):
        read_official_checkpoint(path)


def test_sizes_follow_from_the_weights_and_heads_must_be_known():
    params = random_params()
    assert official_sizes(params, heads=4)["network"] == {
        "patch": 2,
        "width": 16,
        "depth": 2,
        "heads": 4,
        "mlp_ratio": 4.0,
        "compatibility": "official",
    }
    with pytest.raises(ValueError, match="width 16, so its heads are not known"):
        official_sizes(params)
    del params["PatchEmbed_0/Conv_0/kernel"]
    with pytest.raises(ValueError, match="no weight PatchEmbed_0"):
        official_sizes(params)


def test_the_official_network_does_not_begin_with_identity_blocks():
    network = DiT(3, 8, 5, width=16, depth=1, heads=2, compatibility="official")
    assert network.blocks[0].modulation.weight.any()
    assert not network.output.weight.any()
    with pytest.raises(ValueError, match="compatibility must be official or null, got 'jax'"):
        DiT(3, 8, 5, width=16, depth=1, heads=2, compatibility="jax")
