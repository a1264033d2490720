"""Public demonstrations: which there are, where they lie, and how to recognise them.

The robomimic sets: addresses from robomimic's own registry (`robomimic/__init__.py`), 0.5.0 for version v15 (states and
observations of robosuite 1.5, on Hugging Face) and 0.3.0 for version v141 (robosuite 1.4.1, at Stanford: the same
demonstrations, but other files, so that neither address can stand in for the other). 200 demonstrations each (PH, one
proficient operator) or 300 (MH, six operators): https://robomimic.github.io/docs/datasets/robomimic_v0.1.html.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from shortcut_policy.data.download import Progress
from shortcut_policy.data.public_archive import PublicArchive
from shortcut_policy.data.public_hdf5 import PublicHDF5


class PublicDataset(Protocol):
    """What a kind of set has: `path` of its file below a mirror, `place` of a copy below the data folder."""

    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def place(self) -> str: ...  # noqa: D102
    def install(  # noqa: D102
        self,
        folder: Path,
        *,
        mirrors: Sequence[str] = (),
        progress: Progress | None = None,
        retries: int = 4,
        backoff_s: float = 1.0,
    ) -> Path: ...


PUSHT = PublicArchive(
    path="pusht.zip",
    urls=("https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip",),
    target="pusht/pusht_cchi_v7_replay.zarr",
    arrays=("data/action", "data/state", "data/keypoint", "meta/episode_ends"),
    # Over the decoded values of 25,650 steps in 206 episodes, not over the zip file, so that a copy packed
    # or compressed in another way passes too.
    content_sha256="46be9caa09e87408a1ad2cc7b9a005198ecbfc70769409213f19f3050e5caf7d",
)

_ENV_NAMES = {
    "lift": "Lift",
    "can": "PickPlaceCan",
    "square": "NutAssemblySquare",
    "transport": "TwoArmTransport",
    "tool_hang": "ToolHang",
}
_NUM_DEMOS = {"ph": 200, "mh": 300}
_KINDS = ("low_dim", "demo")
_VERSIONS = ("v15", "v141")

_HUGGING_FACE = "https://huggingface.co/datasets/robomimic/robomimic_datasets/resolve"
_REVISION = "74fa018461f479cd9fd15b924a16103012096203"
_STANFORD = "http://downloads.cs.stanford.edu/downloads/rt_benchmark"

# Bytes and sha256 from the Git LFS pointers of that revision, as projects on GitHub that pin it state them:
# suk063/reachy-retarget (reachy_retarget/acquire/catalog.yaml) all low_dim files, Miko997/metriplane both files of
# Can PH. Others state the same for every file but lift/mh. Where nothing stands here, Hugging Face is asked on the way.
_PINNED = {
    "lift/ph/low_dim_v15.hdf5": (21_084_088, "2067777cb8b532e9263dd09fd6448c41cc31224bb27be4a3b734010ae13eb540"),
    "lift/mh/low_dim_v15.hdf5": (50_689_696, "d8bc0de2ca48d0b834ab36561182182d101f4e84bfcec365291ec7acf12124dd"),
    "can/ph/low_dim_v15.hdf5": (46_889_752, "3f2eb92e0a5025d0095e866ac16cc8092d6a762abe27dec90dbaff9027282962"),
    "can/ph/demo_v15.hdf5": (64_932_974, "86961df85af1b9c6b9d4182a3755a8a4db6d0660cd550e45cca1f7accdb6d73d"),
    "can/mh/low_dim_v15.hdf5": (112_792_088, "c4a34c837913446d295c6ca38f2b31888d69812198478af470ecb84a99e9f7d7"),
    "square/ph/low_dim_v15.hdf5": (51_145_256, "45d8cabb6d57a4c03e839aa5e4b3e58fb60fe8bd20e1951fec563a2abfd14951"),
    "square/mh/low_dim_v15.hdf5": (123_300_120, "da7dee0b6da49feae81dbde8fc6508660788e2131098f72ca44f60528405172d"),
    "transport/ph/low_dim_v15.hdf5": (303_187_328, "260515618f4c8b660e54171497ecceb08c7c6463691a9ce862b158bcacd950b4"),
    "transport/mh/low_dim_v15.hdf5": (621_187_696, "b54d650e1048b132f160b349b3b36bb9e008ddb4093913700bbee422c6ae4347"),
    "tool_hang/ph/low_dim_v15.hdf5": (198_601_752, "c5cb01b119a109a3d4842ca515906e86f1f35a8ee1a333d22b3503c1a513a8f4"),
}


def _robomimic(task: str, source: str, kind: str, version: str) -> PublicHDF5:
    path = f"{task}/{source}/{kind}_{version}.hdf5"
    size, sha256 = _PINNED.get(path, (None, None))
    # The revision names the bytes for good; `main` is for the day when the history is rewritten.
    hub = tuple(f"{_HUGGING_FACE}/{revision}/v1.5/{path}" for revision in (_REVISION, "main"))
    return PublicHDF5(
        task=task,
        source=source,
        kind=kind,
        version=version,
        env_name=_ENV_NAMES[task],
        num_demos=_NUM_DEMOS[source],
        urls=hub if version == "v15" else (f"{_STANFORD}/{path}",),
        sha256=sha256,
        size=size,
    )


ROBOMIMIC: Mapping[tuple[str, str, str, str], PublicHDF5] = MappingProxyType(
    {
        (task, source, kind, version): _robomimic(task, source, kind, version)
        for task in _ENV_NAMES
        for source in _NUM_DEMOS
        if (task, source) != ("tool_hang", "mh")  # never recorded
        for kind in _KINDS
        for version in _VERSIONS
    }
)


def select_datasets(
    task: str, source: str | None = None, kind: str | None = None, version: str | None = None
) -> tuple[PublicDataset, ...]:
    """Return the public sets that these words name.

    Args:
        task: "pusht", which has no other words; a robosuite task; or "all": every robosuite task with that source.
        source: "ph" or "mh".
        kind: "low_dim" (the default) or "demo".
        version: "v15" (the default) or "v141".

    Raises:
        ValueError: when there is no such set.
    """
    if task == "pusht":
        if source or kind or version:
            raise ValueError("task=pusht is one data set: leave out source, kind and version")
        return (PUSHT,)
    tasks = list(_ENV_NAMES) if task == "all" else [task]
    if not set(tasks) <= set(_ENV_NAMES):
        raise ValueError(f"task={task} has no public download: choose one of pusht, {', '.join(_ENV_NAMES)} or all")
    kind, version = kind or "low_dim", version or "v15"
    words = (("source", source, tuple(_NUM_DEMOS)), ("kind", kind, _KINDS), ("version", version, _VERSIONS))
    for name, value, choices in words:
        if value not in choices:
            given = f"{name}={value} has no public download" if value else f"task={task} comes from several sources"
            raise ValueError(f"{given}: choose {' or '.join(f'{name}={choice}' for choice in choices)}")
    chosen = tuple(ROBOMIMIC[word] for name in tasks if (word := (name, source, kind, version)) in ROBOMIMIC)
    if not chosen:
        raise ValueError(f"task={task} was not recorded with source={source}: choose source=ph")
    return chosen
