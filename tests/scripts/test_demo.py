"""The demo in small: real demonstrations and rollouts, hardly any training; interrupted, resumed, refused."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortcut_policy.results import read_result

pytest.importorskip("robosuite")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


def words_of(folder):
    short = "environment.options.max_steps=8"
    return [
        *("demonstrations=4", "updates=3", "steps=[1]", "episodes=1", "videos=0", f"folder={folder}"),
        f'policies.shortcut=["objective=shortcut_short","{short}"]',
        f'policies.flow_matching=["objective=flow_matching","{short}"]',
    ]


def test_the_demo_goes_on_after_an_interruption_and_ends_with_a_report(tmp_path, run_command):
    folder = tmp_path / "demo"
    command = [sys.executable, str(ROOT / "scripts/demo.py"), *words_of(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "SHORTCUT_TRACEBACK"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
    )
    parts = folder / "lift.hdf5.parts"
    while not parts.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "the same command goes on" in errors.splitlines()[-1]
    interrupted = json.loads((folder / "stages.json").read_text())
    assert [stage["name"] for stage in interrupted] == ["collect demonstrations"]

    code, out, errors = run_command("demo", *words_of(folder))
    assert code == 0, errors
    assert "note: there will be no videos: none were asked for" in out
    assert "| lift | shortcut |" in out
    assert "| lift | flow matching |" in out
    stages = json.loads((folder / "stages.json").read_text())
    assert [stage["name"] for stage in stages] == ["collect demonstrations", "train", "roll out"]
    assert stages[0]["seconds"] > interrupted[0]["seconds"], "the time before the interruption counts"
    for stage in stages:
        for command in stage["commands"]:
            assert f"\n      {command}\n" in out
        assert f"{stage['seconds']:.0f} s" in out
    for objective in ("shortcut", "flow_matching"):
        result = read_result(folder / objective / "evaluation" / "result.json")
        assert (result.objective, result.network, result.training.steps) == (objective, "unet_tiny", 3)
    report = (folder / "report.html").read_text()
    assert "There are no videos: none were asked for" in report
    assert "train_policy.py task=lift" in report

    before = (folder / "stages.json").read_bytes()
    code, out, _ = run_command("demo", *words_of(folder))
    assert (code, out.count("done before")) == (0, 3)
    assert (folder / "stages.json").read_bytes() == before
    (folder / "stages.json").unlink()  # killed between a product and its record
    code, out, _ = run_command("demo", *words_of(folder))
    assert (code, out.count("done before")) == (0, 3)
    (folder / "stages.json").write_bytes(before)
    code, _, errors = run_command("demo", *words_of(folder), "updates=4")
    assert code == 2
    assert "holds another demo" in errors
    assert errors.count("\n") == 1
    assert (folder / "stages.json").read_bytes() == before

    code, out, errors = run_command("make_report", f"runs={folder / 'shortcut'}", f"output={tmp_path / 'one.html'}")
    assert code == 0, errors
    assert "There are no videos." in (tmp_path / "one.html").read_text()
    code, _, errors = run_command("make_report", f"runs={folder / 'shortcut'}", f"output={tmp_path / 'one.txt'}")
    assert (code, errors.count("\n")) == (2, 1)
    assert "one.txt" in errors


def test_a_stage_that_fails_ends_the_demo(tmp_path, run_command):
    code, _, errors = run_command("demo", *words_of(tmp_path / "demo"), "demonstrations=0")
    assert code == 2
    assert "the stage 'collect demonstrations' failed (exit code 2)" in errors


def test_without_gl_there_are_no_videos_and_the_reason_is_kept(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    drawable = runpy.run_path(str(ROOT / "scripts" / "demo.py"))["drawable"]

    def nothing_draws():
        raise ImportError("nothing draws here: apt-get install libegl1")

    monkeypatch.setitem(drawable.__globals__, "choose_backend", nothing_draws)
    assert drawable(2) == (0, "nothing draws here: apt-get install libegl1")
    monkeypatch.setitem(drawable.__globals__, "choose_backend", lambda: "egl")
    assert drawable(2) == (2, None)
    assert drawable(0)[0] == 0


def test_a_demo_of_nothing_is_refused(run_command):
    code, _, errors = run_command("demo", "~policies", "+policies={}")
    assert (code, errors.count("\n")) == (2, 1)
    assert "policies={}" in errors
