"""Commands run in this process or in one of their own, on demonstrations that are too small to learn from."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demonstrations(tmp_path) -> Path:
    """Four random walks of 30 steps in Push-T's layout."""
    rng = np.random.default_rng(0)
    position = np.clip(256 + np.cumsum(rng.normal(0, 8, (120, 5)), axis=0), 60, 450).astype(np.float32)
    position[:, 4] = rng.uniform(0, 6.28, 120)
    path = tmp_path / "demonstrations.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("data/state", data=position)
    group.create_array("data/action", data=position[:, :2] + 1)
    group.create_array("meta/episode_ends", data=np.array([30, 60, 90, 120]))
    return path


@pytest.fixture(scope="session")
def recording(real_data, tmp_path_factory) -> Path:
    """Two demos of the human recordings of Lift, cut to 25 steps each."""
    source = real_data("robosuite_human/lift_panda_v1.4.0.hdf5")
    path = tmp_path_factory.mktemp("recording") / "raw.hdf5"
    cut = slice(60, 85)  # the first steps of recordings of 1.4 chase a goal that was not recorded
    with h5py.File(source) as whole, h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update(whole["data"].attrs)
        for name in ("demo_1", "demo_3"):
            demo = data.create_group(name)
            demo.attrs.update(whole["data"][name].attrs)
            for array in ("states", "actions"):
                demo[array] = whole["data"][name][array][cut]
    return path


@pytest.fixture
def run_command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run `scripts/{name}.py` in this process: exit code, standard output, standard error."""

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        script = ROOT / "scripts" / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py", *arguments])
        monkeypatch.syspath_prepend(str(script.parent))
        capsys.readouterr()
        try:
            runpy.run_path(str(script), run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def start_command() -> Callable[..., subprocess.Popen]:
    """Start a command in a process of its own."""

    def start(path: str, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(ROOT / path), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start
