"""The page: everything that was measured is on it, and nothing outside it is needed."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest
from PIL import Image
from test_results import RESULT

from shortcut_policy.report import Stage, read_runs, write_report
from shortcut_policy.results import write_result

pytest.importorskip("matplotlib")

FILM = b"\x00\x01 not really a film"


@pytest.fixture
def run_folder(tmp_path):
    """Return a function that makes the folder of an evaluated run."""

    def make(objective="shortcut", task="lift", data="nowhere.hdf5"):
        folder = tmp_path / f"{task}_{objective}"
        (folder / "evaluation" / "videos").mkdir(parents=True)
        (folder / "evaluation" / "videos" / "seed100003_1steps_score0.50.mp4").write_bytes(FILM)
        (folder / "run.json").write_text(json.dumps({"data": {"path": str(data)}}))
        lines = [
            {"step": 50, "train/flow_loss": 0.5, "train/bootstrap_loss": 0.1},
            {"step": 100, "train/flow_loss": 0.4},
            {"step": 100, "valid/action_error_1_steps": 0.3, "valid/action_error_16_steps": 0.2},
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        training = replace(RESULT.training, options={"trainer": {"batch_size": 64}})
        result = replace(RESULT, task=task, objective=objective, training=training)
        write_result(folder / "evaluation" / "result.json", result)
        return folder

    return make


class Page(HTMLParser):
    """The sources of a page's pictures and films, its text, and the tags that were left open."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.sources += [(tag, value) for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def content(source):
    return base64.b64decode(source.partition("base64,")[2])


def test_the_page_holds_all_that_was_measured(tmp_path, run_folder):
    data = tmp_path / "lift.hdf5"
    with h5py.File(data, "w") as file:
        for i, way in enumerate(("left", "right", "left")):
            demo = file.create_group(f"data/demo_{i}")
            demo.attrs["way"] = way
            demo["obs/robot0_eef_pos"] = np.linspace((0, 0, 1), (0, 0.1, 1.1), 9, dtype=np.float32)
            demo["obs/robot0_eef_quat"] = np.tile(np.float32((0, 0, 0, 1)), (9, 1))
    runs = read_runs([run_folder(objective, data=data) for objective in ("shortcut", "flow_matching")])
    path = tmp_path / "somewhere" / "report.html"
    stages = [Stage("train & such", ("python x",), 30.0), Stage("roll out", ("python y",), 42.0)]
    write_report(path, runs, stages=stages, next_commands=["python scripts/other.py 'steps=[1]'"])
    page = Page(path.read_text())
    assert page.open == []
    for words in ("shortcut", "flow matching", "unet_small", "5.8 M", "15,000", "36.0 min"):  # what was trained
        assert words in page.text
    for words in ("0.60", "[0.51, 0.69]", "3.1 ms", "100 episodes", "from seed 100000", "2 training seeds"):
        assert words in page.text
    assert "3 demonstrations" in page.text
    assert "left (2), right (1)" in page.text
    for words in ("train & such", "30 s", "1.2 min", "python scripts/other.py 'steps=[1]'", RESULT.command):
        assert words in page.text
    assert "There are no videos" not in page.text
    assert all(source.startswith("data:") for _, source in page.sources), "the page can be sent alone"
    assert [content(source) for tag, source in page.sources if tag == "video"] == [FILM, FILM]
    pictures = [Image.open(io.BytesIO(content(source))) for tag, source in page.sources if tag == "img"]
    assert len(pictures) == 3, "ways, curves, comparison"
    assert all(picture.width > 1000 for picture in pictures)


def test_a_page_without_videos_says_why_and_without_demonstrations_is_silent(tmp_path, run_folder):
    folder = run_folder()
    next((folder / "evaluation" / "videos").glob("*.mp4")).unlink()
    write_report(tmp_path / "report.html", read_runs([folder]), no_videos="nothing draws <here>")
    page = Page((tmp_path / "report.html").read_text())
    assert re.search(r"There are no videos: nothing draws <here>\s*\.", page.text)
    assert "Demonstrations" not in page.text
    assert "Where the time went" not in page.text


def test_runs_of_the_same_objective_are_told_apart(tmp_path, run_folder):
    one, other = run_folder(), run_folder("flow_matching")
    other.rename(tmp_path / "again")
    (tmp_path / "again/evaluation/result.json").write_bytes((one / "evaluation/result.json").read_bytes())
    names = [run.name for run in read_runs([one, tmp_path / "again"])]
    assert names == ["shortcut (lift_shortcut)", "shortcut (again)"]


def test_mistakes_are_one_sentence(tmp_path, run_folder):
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no run of scripts/train_policy\.py"):
        read_runs([tmp_path / "nowhere"])
    folder = run_folder()
    (folder / "evaluation" / "result.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"was not evaluated: python scripts/eval_policy\.py checkpoint="):
        read_runs([folder])
    with pytest.raises(ValueError, match="not of can, lift"):
        write_report(tmp_path / "x.html", read_runs([run_folder("a"), run_folder("b", task="can")]))
    assert not (tmp_path / "x.html").exists()
