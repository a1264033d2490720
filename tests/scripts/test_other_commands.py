"""The benchmark, the example, the README."""

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from image_gen.image_speed import image_speed_table, read_image_speed
from shortcut_policy import Policy
from shortcut_policy.plots import SOURCE_KEY, sources_text
from shortcut_policy.results import read_result, write_result

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("network", "printed"),
    [
        (("network.widths=[8,16]",), "unet1d (widths [8, 16]), batch 64, fp32"),
        (
            ("network=transformer", "network.width=8", "network.depth=1", "network.heads=2"),
            "transformer (width 8, depth 1, heads 2), batch 64, fp32",
        ),
    ],
)
def test_benchmark_prints_and_writes_the_parts(tmp_path, run_command, network, printed):
    target = tmp_path / "step.json"
    words = (*network, "repeats=2", f"result={target}")
    code, out, errors = run_command("benchmark_training_step", *words)
    assert code == 0, errors
    assert printed in out
    for part in ("training step", "forward + backward", "two bootstrap forwards", "clipping + AdamW"):
        assert part in out
    document = json.loads(target.read_text())
    parts = document["milliseconds_p50"]
    floor = parts["forward + backward"] + parts["two bootstrap forwards"]
    assert document["ratio"] == pytest.approx(parts["training step"] / floor, rel=1e-2)
    assert run_command("benchmark_training_step", *words)[0] == 2


def test_the_benchmark_of_images_prints_and_writes_the_parts(tmp_path, run_command):
    target = tmp_path / "images.json"
    small = ("network.width=16", "network.depth=1", "network.heads=2", "trainer.batch_size=16", "count=3")
    words = (*small, "repeats=2", "steps=[1,2]", "peak_tflops=0.5", f"result={target}")
    code, out, errors = run_command("benchmark_images", *words)
    assert code == 0, errors
    document = json.loads(target.read_text())
    assert image_speed_table([read_image_speed(target)]) in out
    parts = document["milliseconds_p50"]
    assert document["ratio"] == pytest.approx(parts["shortcut update"] / parts["forward + backward"], rel=1e-2)
    assert document["images_per_second"].keys() == {"1", "2"}
    assert document["flops_per_update"] > 1e6
    assert document["utilisation"] == pytest.approx(
        document["flops_per_update"] / parts["shortcut update"] / 1e9 / 0.5, abs=1e-4
    )
    assert "0.5 TFLOP/s, as given)" in out
    for wrong in (
        words,
        ("repeats=0",),
        ("peak_tflops=0",),
        ("objective=flow_matching",),
        ("objective=shortcut_late",),
    ):
        code, _, errors = run_command("benchmark_images", *wrong)
        assert code == 2
        assert errors.count("\n") == 1


def test_the_example_without_hydra_trains_a_policy(tmp_path, real_data, start_command):
    data = real_data("pusht/pusht_cchi_v7_replay.zarr")
    process = start_command("examples/train_from_python.py", str(data), str(tmp_path / "run"), "3")
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert out.count("[") == 17, "a chunk of sixteen actions"
    assert Policy.from_pretrained(tmp_path / "run/checkpoints/last").config.observation_dims["keypoints"] == 18


def test_the_example_of_an_own_robot_trains_both_ways(tmp_path, start_command, run_command):
    data = tmp_path / "reach.hdf5"
    checkpoint = tmp_path / "run" / "checkpoints" / "last"
    for words in (("record.py", data, 8), ("train.py", data, tmp_path / "run", 3), ("evaluate.py", checkpoint, 2)):
        process = start_command(f"examples/own_robot/{words[0]}", *map(str, words[1:]))
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert out.startswith("1 steps: success 0.")
    folder = ROOT / "examples" / "own_robot"
    words = ("--config-dir", str(folder), "task=reach", f"data.path={data}", "network=unet_tiny", "trainer.steps=2")
    code, _, errors = run_command("train_policy", *words, "validation.windows=4", f"output={tmp_path / 'by_yaml'}")
    assert code == 0, errors
    policy = Policy.from_pretrained(tmp_path / "by_yaml/checkpoints/last")
    assert policy.config.observation_shapes == {"position": (2,), "camera": (64, 64, 3)}
    code, _, errors = run_command("eval_policy", f"checkpoint={tmp_path / 'by_yaml'}")
    assert (code, errors.count("\n")) == (2, 1)
    assert "names no environment: evaluate it in yours with shortcut_policy.evaluation.evaluate" in errors


def test_the_pages_are_what_results_and_examples_say():
    script = runpy.run_path(str(ROOT / "scripts" / "update_readme.py"))
    pages = {page.name: page.read_text() for page in script["PAGES"]}
    for path in script["PAGES"]:
        page = pages[path.name]
        assert script["render"](page, figures=script["figures_from"](path)) == page, f"{path.name}: run `make readme`"
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+\.png)\)", page):
            assert (path.parent / picture).exists(), f"{path.name} shows {picture}"
    assert "<!-- result: pusht_mirrored_one_step_s5_pred_late30 -->" in pages["README.md"]
    assert "<!-- file: examples/train_from_python.py -->" in pages["README.md"]
    for example in ("task/reach.yaml", "evaluate.py", "train.py"):
        assert f"<!-- file: examples/own_robot/{example} -->" in pages["custom_data.md"]


def test_comparisons_of_objectives_are_rendered_by_the_name_of_their_preset(tmp_path):
    render = runpy.run_path(str(ROOT / "scripts" / "update_readme.py"))["render"]
    result = read_result(ROOT / "results" / "can_shortcut_short.json")
    (tmp_path / "results").mkdir()
    for preset in ("shortcut", "shortcut_short"):
        name = f"can_comparison_{preset}"
        write_result(tmp_path / "results" / f"{name}.json", replace(result, name=name))
    text = render(
        "<!-- objectives can: can_comparison_shortcut can_comparison_shortcut_short -->\n<!-- end -->", tmp_path
    )
    assert "| shortcut | **0.91**" in text
    assert "| shortcut short | **0.91**" in text
    assert f"- shortcut short: `{result.training.command}`, `{result.command}`" in text
    assert "](docs/figures/can.png)" in text


def test_pictures_are_drawn_from_the_results_that_are_there():
    pictures = sorted((ROOT / "docs" / "figures").glob("*.png"))
    assert pictures
    for path in pictures:
        with Image.open(path) as picture:
            named = picture.text[SOURCE_KEY]
        sources = [ROOT / "results" / part.partition(":")[0] for part in named.split()]
        assert named == sources_text(sources), f"{path.name} is stale: run `make readme`"
