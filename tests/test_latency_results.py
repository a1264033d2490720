"""Scores against latency: file, table, plot and the README's block."""

import io
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from test_results import RESULT, ROW

from shortcut_policy import plots
from shortcut_policy.latency_results import LatencyResult, latency_table, make_latency_row, read_latency_result
from shortcut_policy.results import write_result

ROOT = Path(__file__).parents[1]


def row(steps, latency, ticks, mean, measured=False):
    return make_latency_row(replace(ROW, steps=steps, mean=mean, low=mean - 0.1), latency, ticks, measured)


RESULT_WITH_LATENCY = LatencyResult(
    **vars(RESULT)
    | {
        "name": "pusht_latency",
        "rows": (
            row(1, 0.0, 0, 0.8),
            row(1, 250.0, 3, 0.7),
            row(1, 6.54, 1, 0.75, measured=True),
            row(100, 0.0, 0, 0.6),
            row(100, 250.0, 3, 0.5),
            row(100, 612.3, 7, 0.4, measured=True),
        ),
    },
    rate_hz=10.0,
    action_steps=8,
    ensembling=None,
)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "pusht_latency.json"
    write_result(path, RESULT_WITH_LATENCY)
    assert read_latency_result(path) == RESULT_WITH_LATENCY
    write_result(path, RESULT)
    with pytest.raises(ValueError, match=r"pusht_latency.json: rate_hz is missing"):
        read_latency_result(path)


def test_the_table_has_a_line_for_each_latency_and_one_for_each_ones_own():
    table = latency_table(RESULT_WITH_LATENCY).splitlines()
    assert table[:5] == [
        "| latency | ticks | 1 step | 100 steps |",
        "|---:|---:|---:|---:|",
        "| 0 ms | 0 | **0.800** [0.700, 0.867] | **0.600** [0.500, 0.867] |",
        "| 250 ms | 3 | **0.700** [0.600, 0.867] | **0.500** [0.400, 0.867] |",
        "| its own | 1, 7 | **0.750** [0.650, 0.867] at 7 ms | **0.400** [0.300, 0.867] at 612 ms |",
    ]
    assert "pusht at 10 Hz, shortcut, `unet_small`, 15,000 updates; training seeds 0, 1, 100 episodes" in table[-1]
    given = tuple(row for row in RESULT_WITH_LATENCY.rows if not row.measured)
    others = latency_table(replace(RESULT_WITH_LATENCY, rows=given, ensembling=0.01))
    assert "its own" not in others
    assert "15,000 updates, temporal ensembling (m = 0.01);" in others


def test_the_plot_has_a_line_and_a_star_for_every_number_of_steps(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    drawn, make = [], plots._figure
    monkeypatch.setattr(plots, "_figure", lambda size: drawn.append(make(size)) or drawn[-1])
    source = tmp_path / "pusht_latency.json"
    source.write_text("{}")
    png = Image.open(io.BytesIO(plots.score_against_latency(RESULT_WITH_LATENCY, [source])))
    assert png.text[plots.SOURCE_KEY] == plots.sources_text([source])
    (axes,) = drawn[0].axes
    points = {container.get_label(): container.lines[0].get_xydata().tolist() for container in axes.containers}
    assert points == {
        "1 step": [[0, 0.8], [250, 0.7]],
        "1 step: its own latency, 7 ms": [[6.54, 0.75]],
        "100 steps": [[0, 0.6], [250, 0.5]],
        "100 steps: its own latency, 612 ms": [[612.3, 0.4]],
    }


def test_the_readme_can_show_it(tmp_path):
    script = runpy.run_path(str(ROOT / "scripts" / "update_readme.py"))
    (tmp_path / "results").mkdir()
    write_result(tmp_path / "results" / "pusht_latency.json", RESULT_WITH_LATENCY)
    text = script["render"]("<!-- latency: pusht_latency -->\n<!-- end -->", tmp_path)
    assert latency_table(RESULT_WITH_LATENCY) in text
    assert text.endswith("![score against latency](docs/figures/pusht_latency.png)\n<!-- end -->")
    pytest.importorskip("matplotlib")
    (block,) = script["BLOCK"].finditer(text)
    assert script["picture_of"](block, tmp_path).startswith(b"\x89PNG")
