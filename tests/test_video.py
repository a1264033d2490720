import sys

import numpy as np
import pytest

from shortcut_policy.video import write_mp4

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]


def solid(colour, height=64, width=96):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))


def test_a_player_gets_back_size_rate_count_and_colours(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    frames = [solid(colour) for colour in COLOURS for _ in range(4)]
    path = write_mp4(tmp_path / "videos" / "episode.mp4", frames, fps=10)
    with imageio.get_reader(path, format="FFMPEG") as reader:
        meta = reader.get_meta_data()
        images = list(reader.iter_data())
    assert (meta["codec"], meta["pix_fmt"].split("(")[0], meta["fps"], meta["size"]) == (
        "h264",
        "yuv420p",
        10,
        (96, 64),
    )
    assert len(images) == len(frames)
    for image, frame in zip(images, frames, strict=True):
        np.testing.assert_allclose(image.mean((0, 1)), frame[0, 0], atol=6)
    assert [entry.name for entry in path.parent.iterdir()] == ["episode.mp4"]


def test_odd_sides_grow_by_one(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    path = write_mp4(tmp_path / "odd.mp4", [solid(COLOURS[0], 33, 47)] * 3, fps=5)
    with imageio.get_reader(path, format="FFMPEG") as reader:
        assert reader.get_meta_data()["size"] == (48, 34)
        np.testing.assert_allclose(reader.get_data(1)[-1].mean(0), COLOURS[0], atol=6)


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("a.avi", [solid(COLOURS[0])], 10, "a.avi"),
        ("a.mp4", [], 10, "no frames"),
        ("a.mp4", [solid(COLOURS[0])], 0, "fps=0"),
        ("a.mp4", [solid(COLOURS[0]), solid(COLOURS[0], width=48)], 10, r"\(64, 48, 3\)"),
        ("a.mp4", [np.zeros((64, 96, 3))], 10, "float64"),
        ("a.mp4", [np.zeros((64, 96), np.uint8)], 10, r"\(64, 96\)"),
    ],
)
def test_mistakes_are_named_and_leave_no_file(tmp_path, name, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        write_mp4(tmp_path / name, frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "episode.mp4"
    path.write_bytes(b"old")
    pads = iter([np.pad])

    def interrupted(*args, **options):
        return next(pads)(*args, **options)

    monkeypatch.setattr("shortcut_policy.video.np.pad", interrupted)
    with pytest.raises(StopIteration):
        write_mp4(path, [solid(COLOURS[0])] * 2, fps=10)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("module", ["imageio", "imageio_ffmpeg"])
def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.v2", raising=False)
    with pytest.raises(ImportError, match=r"\[report\]"):
        write_mp4(tmp_path / "a.mp4", [solid(COLOURS[0])], fps=10)
