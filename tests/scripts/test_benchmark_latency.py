import json

import pytest

from shortcut_policy.speed_results import SpeedFloor, read_speed_result, speed_table

TINY = ("network.widths=[8]", "steps=[1,2]", "ddim_steps=2", "ddpm_steps=3", "modes=[eager]", "rounds=50", "device=cpu")


def test_all_samplers_are_timed_beside_each_other(tmp_path, run_command):
    path = tmp_path / "latency_cpu.json"
    code, out, errors = run_command("benchmark_latency", *TINY, f"result={path}")
    assert code == 0, errors
    result = read_speed_result(path)
    named = [(row.sampler, row.steps, row.mode, row.precision) for row in result.rows]
    assert named == [
        ("shortcut", 1, "eager", "fp32"),
        ("shortcut", 2, "eager", "fp32"),
        ("ddim", 2, "eager", "fp32"),
        ("ddpm", 3, "eager", "fp32"),
        ("shortcut", 1, "eager", "bf16"),
    ]
    assert all(0 < row.latency_ms_p50 <= row.latency_ms_p99 <= row.latency_ms_max for row in result.rows)
    assert [row.action_difference for row in result.rows[:4]] == [0.0] * 4
    assert result.rows[4].action_difference > 0
    assert set(result.parts_ms) == {"copy in", "normalise", "encode", "head", "decode and copy out"}
    full, half = result.floors["eager fp32"], result.floors["eager bf16"]
    assert full.weight_bytes == 4 * result.parameters
    assert half.weight_bytes < 0.6 * full.weight_bytes
    assert full.kernels > 20
    assert speed_table(result) in out
    code, _, errors = run_command("benchmark_latency", *TINY, f"result={path}")
    assert code == 2
    assert "overwrite=true" in errors


def test_policies_with_cameras_are_timed_as_well(run_command):
    images = ("images={front: [12, 12, 3]}", "vision.encoder.options={widths: [8], keypoints: 2, feature_dim: 4}")
    code, out, errors = run_command("benchmark_latency", *TINY, *images, "steps=[1]", "precisions=[fp32]")
    assert code == 0, errors
    assert "front 12x12x3" in out


def test_the_floor_is_the_larger_of_its_parts():
    assert SpeedFloor(weight_bytes=100, read_ms=2.0, kernels=10, kernel_ms=0.1).milliseconds == 2.0
    assert SpeedFloor(weight_bytes=100, read_ms=0.5, kernels=10, kernel_ms=0.1).milliseconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["steps=[]"], "steps=[] leaves nothing"),
        (["steps=[0]"], "[0]"),
        (["ddpm_steps=101"], "101"),
        (["rounds=5"], "rounds=5"),
        (["modes=[cuda_graph]"], "needs a GPU"),
        (["modes=[fast]"], "fast"),
        (["checkpoint=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(run_command, words, quoted):
    code, _, errors = run_command("benchmark_latency", *TINY, *words)
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "latency_cpu.json"
    path.write_text(json.dumps({"name": "latency_cpu"}))
    with pytest.raises(ValueError, match="missing"):
        read_speed_result(path)
