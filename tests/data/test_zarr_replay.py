import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.zarr_replay import read_zarr

PUSHT = {
    "agent_pos": ArraySource("state", (0, 2)),
    "block_pos": ArraySource("state", (2, 4)),
    "block_rotation": ArraySource("state", (4, 5), "cos_sin"),
    "keypoints": ArraySource("keypoint"),
}


def check_small(episodes):
    steps = np.arange(1, 11)
    assert episodes.episode_ends.tolist() == [4, 10]
    assert list(episodes.observations) == list(PUSHT)
    assert episodes.actions.tolist() == [[10 * n, 20 * n] for n in steps]
    assert episodes.observations["agent_pos"].tolist() == [[n, 2 * n] for n in steps]
    assert episodes.observations["block_pos"].tolist() == [[3 * n, 4 * n] for n in steps]
    np.testing.assert_allclose(
        episodes.observations["block_rotation"], [[np.cos(n / 2), np.sin(n / 2)] for n in steps], rtol=1e-6
    )
    assert episodes.observations["keypoints"].tolist() == [[n * k for k in range(1, 19)] for n in steps]
    assert {values.dtype for values in episodes.observations.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("zipped_as", [None, "", "replay.zarr", "task/replay.zarr"])
def test_reads_folders_and_zip_files(write_replay, zarr_format, zipped_as):
    path = write_replay(zarr_format=zarr_format, zipped_as=zipped_as)
    episodes = read_zarr(path, PUSHT)
    check_small(episodes)
    assert episodes.source == str(path)


def test_reads_shards(write_replay, replay_arrays):
    path = write_replay(zarr_format=3)
    action = replay_arrays["data/action"].astype(np.float32)
    zarr.create_array(path / "data/action", data=action, chunks=(2, 2), shards=(4, 2), overwrite=True)
    check_small(read_zarr(path, PUSHT))
    (path / "data/action/c/1/0").unlink()
    with pytest.raises(ValueError, match="chunk c/1/0 of data/action is missing"):
        read_zarr(path, PUSHT)


def test_finds_the_store_below_a_folder(write_replay, tmp_path):
    write_replay(name="task/replay.zarr")
    check_small(read_zarr(tmp_path, PUSHT))


def test_refuses_to_choose_between_stores(write_replay, tmp_path):
    write_replay(name="a.zarr")
    write_replay(name="b.zarr")
    with pytest.raises(ValueError, match=r"holds 2 replay buffers, name one: .*a\.zarr, .*b\.zarr"):
        read_zarr(tmp_path, PUSHT)


def test_cuts_overallocated_arrays(write_replay, replay_arrays):
    arrays = {
        key: np.concatenate([values, np.full((10, *values.shape[1:]), np.nan)]) if "data" in key else values
        for key, values in replay_arrays.items()
    }
    path = write_replay(arrays)
    for unused in ("3.0", "4.0"):  # rows 12 to 19
        (path / "data/action" / unused).unlink()
    check_small(read_zarr(path, PUSHT))


def test_touches_only_what_is_asked_for(write_replay, replay_arrays):
    path = write_replay({**replay_arrays, "data/img": np.ones((10, 8, 8, 3), np.uint8)})
    metadata = json.loads((path / "data/img/.zarray").read_text())
    metadata["compressor"] = {"id": "a codec that is not installed"}
    (path / "data/img/.zarray").write_text(json.dumps(metadata))
    check_small(read_zarr(path, PUSHT))


def test_cos_sin_keeps_angles_apart(write_replay):
    angles = np.array([[0.0, np.pi], [np.pi / 2, -np.pi / 2]], np.float32)
    path = write_replay({"data/action": angles, "meta/episode_ends": np.array([2])})
    episodes = read_zarr(path, {"angles": ArraySource("action", transform="cos_sin")})
    np.testing.assert_allclose(episodes.observations["angles"], [[1, 0, -1, 0], [0, 1, 0, -1]], atol=1e-6)


def test_pusht_demonstrations(real_data):
    episodes = read_zarr(real_data("pusht"), PUSHT)
    assert (episodes.num_episodes, episodes.num_steps) == (206, 25650)
    assert {key: values.shape[1] for key, values in episodes.observations.items()} == {
        "agent_pos": 2,
        "block_pos": 2,
        "block_rotation": 2,
        "keypoints": 18,
    }
    np.testing.assert_allclose((episodes.observations["block_rotation"] ** 2).sum(axis=1), 1, rtol=1e-5)
    # The agent is driven to the action: both are positions in the same 512-pixel square.
    assert np.abs(episodes.actions - episodes.observations["agent_pos"]).mean() < 20
    assert 0 < episodes.actions.min() < episodes.actions.max() < 512


# What may be wrong with a path


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zarr does not exist"):
        read_zarr(tmp_path / "nowhere.zarr", PUSHT)


def test_truncated_zip(write_replay):
    path = write_replay(zipped_as="replay.zarr")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no zarr store: neither a directory nor a complete zip"):
        read_zarr(path, PUSHT)


def test_foreign_file_and_zip(tmp_path):
    path = tmp_path / "demos.hdf5"
    path.write_bytes(b"\x89HDF\r\n")
    with pytest.raises(ValueError, match="neither a directory nor a complete zip"):
        read_zarr(path, PUSHT)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="no replay buffer: there is no meta/episode_ends"):
        read_zarr(path, PUSHT)


def test_folder_without_episode_ends(write_replay):
    path = write_replay()
    shutil.rmtree(path / "meta")
    with pytest.raises(ValueError, match="no meta/episode_ends"):
        read_zarr(path, PUSHT)


# What may be wrong with an array


@pytest.mark.parametrize("zipped_as", [None, "replay.zarr"])
def test_missing_array_lists_those_present(write_replay, zipped_as):
    path = write_replay(zipped_as=zipped_as)
    with pytest.raises(ValueError, match="no array data/images: it holds data/action, data/keypoint, data/state"):
        read_zarr(path, {"image": ArraySource("images")})


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("zarr_format", "key"), [(2, "1.0"), (3, "c/1/0")])
def test_missing_chunk(write_replay, zarr_format, key, zipped):
    path = write_replay(zarr_format=zarr_format)
    (path / "data/action" / key).unlink()
    if zipped:
        shutil.make_archive(str(path), "zip", path)
        path = path.with_name("replay.zarr.zip")
    with pytest.raises(ValueError, match=f"chunk {key} of data/action is missing"):
        read_zarr(path, PUSHT)


def test_missing_chunk_of_episode_ends(write_replay):
    path = write_replay()
    (path / "meta/episode_ends/0").unlink()
    with pytest.raises(ValueError, match="chunk 0 of meta/episode_ends is missing"):
        read_zarr(path, PUSHT)


@pytest.mark.parametrize("keep", [0, 10, 20, -1])
@pytest.mark.parametrize(
    ("zarr_format", "key", "options"),
    [
        (2, "1.0", {}),  # zarr's default is Blosc
        (3, "c/1/0", {}),  # zstd
        (3, "c/1/0", {"compressors": BloscCodec()}),
        (3, "c/1/0", {"compressors": None}),
    ],
)
def test_truncated_chunk(write_replay, zarr_format, key, options, keep):
    path = write_replay(zarr_format=zarr_format, **options)
    chunk = path / "data/action" / key
    chunk.write_bytes(chunk.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"chunk {key} of data/action (is truncated|cannot be decoded)"):
        read_zarr(path, PUSHT)


def test_corrupt_chunk(write_replay):
    path = write_replay(zarr_format=3)
    (path / "data/state/c/2/0").write_bytes(b"not zstd")
    with pytest.raises(ValueError, match="chunk c/2/0 of data/state cannot be decoded"):
        read_zarr(path, PUSHT)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_corrupt_zip_member(write_replay, zarr_format):
    path = write_replay(zarr_format=zarr_format, zipped_as="")
    key = "1.0" if zarr_format == 2 else "c/1/0"
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"data/action/{key}")
    content = bytearray(path.read_bytes())
    content[member.header_offset + 30 + len(member.filename) + member.compress_size - 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"chunk {key} of data/action (is unreadable|cannot be decoded)"):
        read_zarr(path, PUSHT)


def test_broken_metadata(write_replay):
    path = write_replay()
    (path / "data/state/.zarray").write_text("{")
    with pytest.raises(ValueError, match=r"data/state of .* cannot be opened"):
        read_zarr(path, PUSHT)


def test_never_unpickles(write_replay, tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").touch, ())

    path = write_replay()
    folder = path / "data/state"
    for changes in (
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"dtype": "|O", "filters": [{"id": "json2"}, {"id": "pickle"}]},
        {"dtype": "<f4", "filters": None, "compressor": {"id": "pickle"}},
    ):
        metadata = json.loads((folder / ".zarray").read_text())
        metadata |= {"compressor": None, "fill_value": None, **changes}
        (folder / ".zarray").write_text(json.dumps(metadata))
        for key in ("0.0", "1.0", "2.0"):
            (folder / key).write_bytes(pickle.dumps(Payload()))
        with pytest.raises(ValueError, match=r"data/state of .* (cannot be opened|is not numeric)"):
            read_zarr(path, PUSHT)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data/state": np.ones((9, 5))}, "data/state of .* has 9 rows, but the last episode ends at 10"),
        ({"data/action": np.ones(10)}, r"data/action of .* has shape \(10,\): low-dim arrays are \(N, K\)"),
        ({"data/keypoint": np.ones((10, 8, 8, 5))}, r"shape \(10, 8, 8, 5\), but images are .* with C of 1, 3"),
        ({"data/keypoint": np.ones((10, 3, 8, 8))}, r"shape \(10, 3, 8, 8\), .* move the channels to the last axis"),
        ({"data/keypoint": np.full((10, 8, 8, 3), -1.0)}, "keypoint of .* holds -1.0, .* scale them to that and round"),
        ({"data/keypoint": np.ones((10, 8, 8, 3))}, "holds nothing but 0 and 1 as float32, .* multiply them"),
        ({"data/keypoint": np.linspace(0.4, 255, 1920).reshape(10, 8, 8, 3)}, "holds 0.4.* in 0 ... 255: round them"),
        ({"data/keypoint": np.ones((10, 8, 0, 3))}, r"shape \(10, 8, 0, 3\), but images are"),
        ({"data/keypoint": np.full((10, 8, 8, 3), 0.5)}, "keypoint of .* holds 0.5, .* multiply them by 255 and round"),
        ({"data/keypoint": np.full((10, 8, 8, 3), 256.0)}, "keypoint of .* holds 256.0, but images are whole"),
        ({"data/keypoint": np.full((10, 8, 8, 3), np.nan)}, "keypoint of .* holds nan"),
        ({"data/action": np.full((10, 8, 8, 3), 2)}, "action holds images, which are no actions"),
        ({"data/keypoint": np.ones((10, 8, 8), np.uint8)}, r"uint8 \(10, 8, 8\): give gray images an axis of channels"),
        ({"data/state": np.full((10, 8, 8, 3), 2)}, "state holds images, which take neither columns nor a transform"),
        ({"data/keypoint": np.ones((10, 2, 8, 8, 3))}, r"has shape \(10, 2, 8, 8, 3\): low-dim arrays are"),
        ({"data/state": np.ones((10, 4))}, "columns 4:5 of state exceed its last axis of 4"),
        ({"data/state": np.full((10, 5), "text")}, "data/state of .* is not numeric"),
        ({"meta/episode_ends": np.array([4, 4])}, "episode 0 ends at 4 and episode 1 at 4"),
        ({"meta/episode_ends": np.array([4, 11])}, "10 rows, but the last episode ends at 11"),
        ({"meta/episode_ends": np.array([4.0, 10.0])}, "episode_ends must be a 1-D integer array, not float"),
        ({"meta/episode_ends": np.array(10)}, "single number"),
        ({"data/action": np.full((10, 2), np.nan)}, "actions: NaN or infinity at step 0"),
    ],
)
def test_refuses_what_does_not_agree(write_replay, replay_arrays, changes, message):
    path = write_replay(replay_arrays | changes)
    with pytest.raises(ValueError, match=message) as error:
        read_zarr(path, PUSHT)
    assert str(path) in str(error.value)
