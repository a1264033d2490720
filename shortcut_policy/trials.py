"""Trials of what may crash or hang, each in a process of its own: `python -m shortcut_policy.trials NAME ARGUMENTS`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Finding", "roll_out", "try_apart", "try_gpu", "try_rollout"]


@dataclass(frozen=True)
class Finding:
    """What is known of one part.

    Attributes:
        part: its name.
        state: "works", "absent" (not installed or not there, which is no mistake) or "problem".
        text: what was found.
        remedy: how to mend it, "" where that is not needed or stands in the text.
    """

    part: str
    state: Literal["works", "absent", "problem"]
    text: str
    remedy: str = ""


def try_apart(checkout: Path, part: str, trial: str, *arguments: Any, timeout: float = 60) -> Finding:
    """Call a trial of this module in a process of its own, where a crash or a hang is just one more finding."""
    try:
        run = subprocess.run(
            [sys.executable, "-m", "shortcut_policy.trials", trial, json.dumps(arguments)],
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return Finding(**json.loads(run.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Finding(part, "problem", f"hangs (given up after {timeout:g} s)")
    except (IndexError, ValueError):  # it ended without a finding
        last_words = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
        reason = signal.Signals(-run.returncode).name if run.returncode < 0 else last_words[-1]
        return Finding(part, "problem", f"crashes: {reason}")


def try_rollout(name: str, seconds: float) -> Finding:
    """Build an environment and step it, see `roll_out`."""
    try:
        return Finding(name, "works", roll_out(name, seconds))
    except ImportError as error:
        command = re.search(r"pip install [^`]+", str(error))
        if isinstance(error.__cause__, ModuleNotFoundError) and command:
            return Finding(name, "absent", f"there is no module {error.__cause__.name}: {command[0]}")
        return Finding(name, "problem", str(error))
    except Exception as error:
        return Finding(
            name, "problem", f"{type(error).__name__}: {error}", f"see python scripts/doctor.py rollout={name}"
        )


def roll_out(name: str, seconds: float) -> str:
    """Build an environment, step it with random actions for some seconds, and say how fast it was."""
    import envs

    started = time.perf_counter()
    env = envs.make(name)
    env.action_space.seed(0)
    env.reset(seed=0)
    building = time.perf_counter() - started
    env.step(env.action_space.sample())  # the first step may compile something
    steps, stepping = 0, 0.0
    while stepping < seconds:
        action = env.action_space.sample()
        before = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        stepping += time.perf_counter() - before
        steps += 1
        if terminated or truncated:
            env.reset()
    env.close()
    return f"{steps / stepping:,.0f} steps/s, ready after {building:.1f} s"


def try_gpu() -> Finding:
    """Multiply two numbers on every GPU that PyTorch sees, in this process."""
    try:
        import torch
    except ModuleNotFoundError:
        return Finding("GPU", "absent", "not tried: PyTorch is not installed")
    driver = _nvidia_driver()
    if torch.cuda.is_available():
        return _check_visible_gpus(torch, driver)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver is None:
        return Finding("GPU", "absent", "none: training runs on the CPU")
    if visible is not None and visible.strip() in ("", "-1"):
        return Finding("GPU", "absent", f"hidden by CUDA_VISIBLE_DEVICES={visible!r}: training runs on the CPU")
    if torch.version.cuda is None:
        text = f"there is one (driver {driver}), but this PyTorch is built for CPUs"
    else:
        try:
            torch.cuda.init()
            reason = "it sees no device"
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition(". ")[0]
        text = f"PyTorch's CUDA {torch.version.cuda} does not run with the driver {driver}: {reason}"
    return Finding("GPU", "problem", text, "choose a fitting PyTorch at https://pytorch.org/get-started/locally")


def _check_visible_gpus(torch: Any, driver: str | None) -> Finding:
    gpus: Counter[str] = Counter()
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        try:
            works = (torch.full((1,), 6.0, device=f"cuda:{index}") * 7).item() == 42
        except RuntimeError as error:
            return Finding("GPU", "problem", f"{properties.name} does not compute: {str(error).splitlines()[0]}")
        if not works:
            return Finding("GPU", "problem", f"{properties.name} computes 6 * 7 wrongly")
        capability = f"{properties.major}.{properties.minor}"
        bf16 = "bf16" if properties.major >= 8 else "no bf16: train with trainer.precision=fp32"
        gpus[f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, capability {capability}, {bf16}"] += 1
    build = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}, driver {driver}"
    listed = "; ".join(f"{number} x {gpu}" if number > 1 else gpu for gpu, number in gpus.items())
    return Finding("GPU", "works", f"{listed}, {build}")


def _nvidia_driver() -> str | None:
    """Version of the NVIDIA driver; None where it or its GPU is absent."""
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        run = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
        return run.stdout.split()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        pass
    version = Path("/proc/driver/nvidia/version")
    if not version.exists() or not any(Path("/dev").glob("nvidia[0-9]*")):
        return None
    found = re.search(r"\d+\.\d+[.\d]*", version.read_text())
    return found[0] if found else "of unknown version"


if __name__ == "__main__":
    print(json.dumps(asdict({"try_gpu": try_gpu, "try_rollout": try_rollout}[sys.argv[1]](*json.loads(sys.argv[2])))))
