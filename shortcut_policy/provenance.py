"""Where figures come from: the command, the commit, the hardware, the versions."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch

PACKAGES = ("torch", "numpy", "gymnasium", "gym-pusht", "pymunk", "mujoco", "robosuite")


def current_command() -> str:
    """The command line of this process, with the script as seen from the present folder where it lies below that."""
    script, *words = sys.argv
    below = os.path.relpath(script)
    return f"python {shlex.join([script if below.startswith(os.pardir) else below, *words])}"


def describe_hardware(device: torch.device) -> str:
    """The device that computes, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    return f"{f'{threads} of ' if threads != cores else ''}{cores} CPU core{'' if cores == 1 else 's'} ({model})"


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def current_commit() -> str:
    """The commit of the checkout that holds this file, with "-dirty" for tracked changes; "unknown" outside git.

    Files in `results/` do not count: a measurement may have written over the last one.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        difference = [*git, "diff", "--quiet", "HEAD", "--", ":/", ":(exclude,top)results"]
        changes = subprocess.run(difference, capture_output=True, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-dirty" if changes else "")
