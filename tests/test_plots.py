"""Plots show what they are given and say from which files they were drawn."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_results import RESULT, ROW

from shortcut_policy import plots
from shortcut_policy.diversity import HandPath

pytest.importorskip("matplotlib")


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    drawn, make = [], plots._figure

    def figure(size):
        drawn.append(make(size))
        return drawn[-1]

    monkeypatch.setattr(plots, "_figure", figure)
    return drawn


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_comparison_has_a_line_for_every_policy(figures, tmp_path):
    sources = [tmp_path / "a.json", tmp_path / "b.json"]
    for source in sources:
        source.write_text(source.name)
    flow = replace(RESULT, objective="flow_matching", rows=(replace(ROW, steps=4, success=0.25, success_low=0.1),))
    png = Image.open(io.BytesIO(plots.comparison({"a": RESULT, "b": flow}, sources)))
    left, right = figures[0].axes
    assert labels(right) == ["a", "b"]
    assert left.lines[0].get_xydata().tolist() == [[1, ROW.success], [16, ROW.success]]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["1", "4", "16"]
    digests = [f"{source.name}:{hashlib.sha256(source.read_bytes()).hexdigest()}" for source in sources]
    assert png.text[plots.SOURCE_KEY] == " ".join(digests)
    assert [line.get_color() for line in left.lines if line.get_marker() in "os"] == ["C0", "C1"]
    same = replace(RESULT, task="can")
    plots.comparison({"a": RESULT, "b": same, "c": replace(flow, task="can")})
    looks = [(line.get_color(), line.get_marker()) for line in figures[1].axes[0].lines if line.get_marker() in "os"]
    assert looks == [("C0", "o"), ("C1", "o"), ("C1", "s")], "a colour for the task, a mark for the objective"
    plots.comparison({"a": RESULT, "b": replace(RESULT, name="longer"), "c": same})
    looks = [line.get_color() for line in figures[2].axes[0].lines if line.get_marker() in "osD"]
    assert looks == ["C0", "C1", "C2"], "where these are the same, a colour each"


def test_latencies_of_other_hardware_are_not_drawn_beside(figures):
    plots.comparison({"a": RESULT, "b": RESULT, "c": replace(RESULT, hardware="GPU")})
    left, right = (sum(line.get_marker() in "osD" for line in axes.lines) for axes in figures[0].axes)
    assert (left, right) == (3, 2)
    assert labels(figures[0].axes[1]) == ["a", "b", "c"]


def test_curves_are_those_of_the_log(figures):
    lines = [
        {"step": 1, "train/flow_loss": 0.5, "train/bootstrap_loss": 0.25},
        {"step": 2, "train/flow_loss": 0.4},
        {"step": 2, "valid/action_error_16_steps": 0.1, "valid/action_error_1_steps": 0.2},
    ]
    plots.training_curves({"a": lines, "b": []})
    left, right = figures[0].axes
    assert labels(left) == ["a: flow", "a: bootstrap"]
    assert left.lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.4]]
    assert labels(right) == ["a: 1 step", "a: 16 steps"]


def test_demonstrations_are_coloured_by_their_way(figures):
    turn = np.linspace(0, 1, 5)
    paths = [HandPath(way, np.zeros((5, 3)), sign * turn) for way, sign in (("left", 1), ("right", -1), ("left", 2))]
    plots.demonstrations(paths)
    lines = figures[0].axes[2].lines
    assert [line.get_color() for line in lines[:3]] == ["C0", "C1", "C0"]
    assert lines[1].get_ydata()[-1] == pytest.approx(-np.degrees(1))
    assert labels(figures[0].axes[2]) == ["left", "right"]
