"""What works on this machine and how to mend what does not; it needs none of the packages that it looks for.

Whatever may crash or hang (drivers, simulators) is tried in a process of its own.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shortcut_policy.trials import Finding, try_apart

__all__ = ["diagnose"]

_DATA_SUFFIXES = (".zarr", ".hdf5", ".h5", ".parquet", ".zip")


def diagnose(checkout: Path, *, seconds: float = 1) -> Iterator[tuple[str, Iterator[Finding]]]:
    """Yield (title, findings) section by section; the findings come as they are made.

    Args:
        checkout: The folder with pyproject.toml, constraints.txt and, unless SHORTCUT_DATA says otherwise, data/.
        seconds: How long each environment steps.
    """
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    yield "Packages", _check_packages(project, checkout / "constraints.txt")
    yield "Machine", _check_machine(checkout)
    yield "Data", _check_data(checkout)
    yield f"Environments, {seconds:g} s each", _check_environments(checkout, seconds)


def _check_packages(project: Mapping[str, Any], constraints: Path) -> Iterator[Finding]:
    python = platform.python_version()
    found, problem = f"{python} ({sys.executable})", _outside(project["requires-python"], python)
    yield Finding("python", "problem" if problem else "works", found, f"install Python {problem}" if problem else "")
    places = [Path(str(found.locate_file(""))) for found in importlib.metadata.distributions(name=project["name"])]
    if all(place.resolve() == constraints.parent for place in places):  # only what an installation left in the checkout
        yield Finding("package", "problem", f"{project['name']} is not installed in this Python", "pip install -e .")
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints.read_text(), re.MULTILINE))
    yield _check_group("needed", project["dependencies"], tested)
    for extra, requirements in project["optional-dependencies"].items():
        if not any(requirement.startswith(project["name"]) for requirement in requirements):  # not "all"
            yield _check_group(f"[{extra}]", requirements, tested)


def _check_group(group: str, requirements: list[str], tested: Mapping[str, str]) -> Finding:
    """One finding on an extra's packages, or on the "needed" ones."""
    own = {"needed": "pip install -e .", "[robomimic]": "make .venv/.robomimic"}  # a part of robomimic is compiled
    install = own.get(group, f"pip install -e '.{group}'")
    texts, wrong, missing = [], [], []
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)[0]
        version = _version(name)
        if version is None:
            missing.append(name)
        elif wanted := _outside(requirement[len(name) :], version):
            wrong.append(f"'{name}{wanted}'")
            texts.append(f"{name}=={version} (needs {wanted})")
        else:
            other = tested.get(name, version) != version
            texts.append(f"{name}=={version}" + (f" (tested: {tested[name]})" if other else ""))
    if missing and len(missing) == len(requirements) and group != "needed":
        return Finding(group, "absent", f"not installed: {install}")
    if missing:
        texts.append(f"missing: {', '.join(missing)}")
    if wrong:
        return Finding(group, "problem", ", ".join(texts), f"pip install {' '.join(wrong)}")
    if missing:
        return Finding(group, "problem" if group == "needed" else "absent", ", ".join(texts), install)
    return Finding(group, "works", ", ".join(texts))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _outside(wanted: str, version: str) -> str:
    """Return the range `wanted` if the version lies outside; without `packaging`, whose absence shows, nothing does."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return ""
    return "" if SpecifierSet(wanted).contains(version, prereleases=True) else wanted


def _check_machine(checkout: Path) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("CPU", "works", f"{cores} cores, {platform.system()} {platform.machine()}")
    yield try_apart(checkout, "GPU", "try_gpu")
    commands = {"cmake": ("cmake", "pip install cmake"), "C++ compiler": ("c++", "apt-get install g++")}
    lacking = [f"no {tool}: {remedy}" for tool, (command, remedy) in commands.items() if not shutil.which(command)]
    found = "; ".join(lacking) or "cmake and C++"
    yield Finding("compilers", "absent" if lacking else "works", f"{found} (for installing robomimic only)")
    yield from _check_rendering()


def _check_rendering() -> Iterator[Finding]:
    """One finding for each GL backend that needs no display; a problem if none of them draws."""
    try:
        from envs.rendering import choose_backend, default_backends, probe
    except ImportError as error:
        yield Finding("GL", "absent", f"not tried: {error}")
        return
    if _version("mujoco") is None:
        yield Finding("GL", "absent", "not tried: MuJoCo, which would draw, is not installed")
        return
    probes = [probe(backend) for backend in default_backends()]
    chosen, mistake = "", ""
    try:
        chosen = choose_backend()
    except (ValueError, ImportError) as error:
        mistake = str(error)
    one_draws = bool(chosen) or any(found.failure is None for found in probes)
    for found in probes:
        if found.failure is None:
            yield Finding(f"GL {found.backend}", "works", f"draws with {found.renderer}")
        else:
            state = "absent" if one_draws else "problem"
            yield Finding(f"GL {found.backend}", state, f"{found.failure}: {found.remedy}")
    if mistake and one_draws:
        yield Finding("MUJOCO_GL", "problem", mistake)
    elif chosen and chosen not in default_backends():
        yield Finding(f"GL {chosen}", "works", "draws, and MUJOCO_GL asks for it")


def _check_data(checkout: Path) -> Iterator[Finding]:
    wanted = os.environ.get("SHORTCUT_DATA")
    folder = Path(wanted or checkout / "data")
    name = f"{folder} (SHORTCUT_DATA)" if wanted else str(folder)
    if not folder.is_dir():
        remedy = "python scripts/download_data.py (--help lists what there is), or set SHORTCUT_DATA"
        yield Finding("folder", "problem" if wanted else "absent", f"{name} does not exist", remedy)
        return
    yield Finding("folder", "works", name)
    counts: Counter[tuple[str, str]] = Counter()
    for parent, folders, files in os.walk(folder):
        depth = len(Path(parent).relative_to(folder).parts)
        for path in map(Path, (*folders, *files)):
            if path.suffix in _DATA_SUFFIXES:
                counts[str(Path(parent).relative_to(folder)), path.suffix[1:]] += 1
        folders[:] = [child for child in folders if depth < 3 and Path(child).suffix not in _DATA_SUFFIXES]
    contents = [f"{number} {kind} in {parent}" for (parent, kind), number in sorted(counts.items())]
    if contents:
        yield Finding("contents", "works", ", ".join(contents))
    else:
        kinds = ", ".join(_DATA_SUFFIXES)
        yield Finding("contents", "absent", f"no {kinds}: python scripts/download_data.py (--help lists what there is)")


def _check_environments(checkout: Path, seconds: float) -> Iterator[Finding]:
    try:
        from envs import task_names
    except ImportError as error:
        yield Finding("all", "absent", f"not tried: {error}")
        return
    for name in task_names():
        yield try_apart(checkout, name, "try_rollout", name, seconds, timeout=60 + 2 * seconds)
