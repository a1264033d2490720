"""Mirrored demonstrations: the maps, what is refused, and that Push-T's mirror is one in the simulator."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from shortcut_policy.config import from_mapping
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.symmetry import AffineMap, Symmetry, with_symmetric_copies
from shortcut_policy.data.zarr_replay import read_zarr
from shortcut_policy.experiment import read_demonstrations
from shortcut_policy.experiment_config import DataConfig

TURN = AffineMap(((0.0, -1.0), (1.0, 0.0)), (10.0, 20.0))
FLIP = AffineMap(((-1.0,),))


def episodes(**changes):
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    fields = {"actions": values[:, :1], "episode_ends": np.array([2, 5]), "source": "a test"}
    return Episodes(**{"observations": {"position": values}} | fields | changes)


def test_copies_are_mapped_and_follow_the_originals():
    both = with_symmetric_copies(episodes(names=("a", "b")), [Symmetry("turn", {"position": TURN}, FLIP)])
    assert both.episode_ends.tolist() == [2, 5, 7, 10]
    assert both.names == ("a", "b", "a, turn", "b, turn")
    assert both.observations["position"][:5].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert both.observations["position"][5:].tolist() == [[9, 20], [7, 22], [5, 24], [3, 26], [1, 28]]
    assert both.actions[:, 0].tolist() == [0, 2, 4, 6, 8, 0, -2, -4, -6, -8]
    assert both.actions.dtype == both.observations["position"].dtype == np.float32


def test_each_symmetry_makes_a_copy_and_none_makes_none():
    flip = Symmetry("flip", {"position": TURN}, FLIP)
    assert with_symmetric_copies(episodes(), [flip, flip]).num_episodes == 6
    alone = episodes()
    assert with_symmetric_copies(alone, []) is alone


@pytest.mark.parametrize(
    ("values", "quoted"),
    [
        ({"matrix": [[1, 0]]}, r"D rows of D finite numbers, got \(\(1.0, 0.0\),\)"),
        ({"matrix": []}, "D rows of D"),
        ({"matrix": [[float("nan")]]}, "D rows of D finite"),
        ({"matrix": [[1, 1], [1, 1]]}, r"\(\(1.0, 1.0\), \(1.0, 1.0\)\) cannot be inverted"),
        (
            {"matrix": [[1]], "offset": [1, 2]},
            r"offset must have 1 finite numbers, as matrix has rows, got \(1.0, 2.0\)",
        ),
    ],
)
def test_what_is_no_map(values, quoted):
    with pytest.raises(ValueError, match=quoted):
        from_mapping(AffineMap, values)


@pytest.mark.parametrize(
    ("observations", "quoted"),
    [
        ({}, "'flip' does not map 'position': it must map .* position"),
        ({"position": TURN, "angle": FLIP}, "'flip' maps 'angle'"),
        ({"position": FLIP}, r"'flip', position: matrix has 1 rows, but the data have shape \(5, 2\)"),
    ],
)
def test_a_symmetry_that_does_not_fit_the_data(observations, quoted):
    with pytest.raises(ValueError, match=quoted):
        with_symmetric_copies(episodes(), [Symmetry("flip", observations, FLIP)])


def test_images_are_refused():
    images = np.zeros((5, 2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="cannot map images such as 'image': leave"):
        with_symmetric_copies(episodes(observations={"image": images}), [Symmetry("flip", {"image": FLIP}, FLIP)])


@pytest.fixture
def mirror():
    """The symmetry of task=pusht_mirrored, as its file has it."""
    path = Path(__file__).parents[2] / "configs" / "task" / "pusht_mirrored.yaml"
    (values,) = yaml.safe_load(path.read_text())["data"]["symmetries"]
    return from_mapping(Symmetry, values)


def push_t_data(path, **changes):
    columns = {"agent_pos": (0, 2), "block_pos": (2, 4)}
    observations = {name: ArraySource("state", part) for name, part in columns.items()}
    observations["block_rotation"] = ArraySource("state", (4, 5), "cos_sin")
    return DataConfig(str(path), observations, ArraySource("action"), **changes)


def test_push_t_looks_the_same_in_its_mirror(real_data, mirror):
    """Mirrored actions from a mirrored state do in the simulator what the mirror shows."""
    pytest.importorskip("gym_pusht")
    from envs.pusht import PushT

    data = push_t_data(real_data("pusht/pusht_cchi_v7_replay.zarr"))
    recorded = read_zarr(data.path, data.observations, data.action).select([0, 57, 205])
    mirrored = mirror(recorded)
    worlds = PushT(), PushT()

    def state(episodes: Episodes, row: int) -> tuple[float, ...]:
        seen = {key: values[row].tolist() for key, values in episodes.observations.items()}
        cosine, sine = seen["block_rotation"]
        return *seen["agent_pos"], *seen["block_pos"], float(np.arctan2(sine, cosine))

    coverages = []
    for start, end in zip(recorded.episode_starts, recorded.episode_ends, strict=True):
        for world, episodes in zip(worlds, (recorded, mirrored), strict=True):
            world.reset(seed=0, options={"state": state(episodes, start)})
        for row in range(start, end):
            (seen, *_, info), (other, *_, other_info) = (
                world.step(episodes.actions[row]) for world, episodes in zip(worlds, (recorded, mirrored), strict=True)
            )
            for key, mapping in mirror.observations.items():
                tolerance = 1e-4 if key == "block_rotation" else 0.01  # of [-1, 1], and px: contacts amplify rounding
                np.testing.assert_allclose(other[key], mapping(seen[key][None])[0], atol=tolerance)
            assert other_info["coverage"] == pytest.approx(info["coverage"], abs=1e-4)
            coverages.append(info["coverage"])
    assert max(coverages) > 0.8, "the episodes do what they are for"


def test_only_what_is_trained_on_is_mirrored(real_data, mirror):
    path = real_data("pusht/pusht_cchi_v7_replay.zarr")
    plain = read_demonstrations(push_t_data(path))
    both = read_demonstrations(push_t_data(path, symmetries=(mirror,)))
    assert (plain.training.num_episodes, both.training.num_episodes) == (202, 404)
    np.testing.assert_array_equal(both.held_out.actions, plain.held_out.actions)
    np.testing.assert_array_equal(both.training.actions[: plain.training.num_steps], plain.training.actions)
    twice = mirror(mirror(plain.training))
    np.testing.assert_allclose(twice.actions, plain.training.actions, atol=1e-4)
