"""The checkpoint folder: `config.json` and `model.safetensors`, all that inference needs. Nothing in it is pickled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Pretrained:
    """What a checkpoint folder holds.

    Attributes:
        kind: what was saved ("policy", ...).
        config: JSON values from which the model is rebuilt.
        tensors: name -> tensor, on the CPU.
        sha256: of model.safetensors.
    """

    kind: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    sha256: str


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder that a path means: itself, or the last one of a run."""
    last = Path(path) / "checkpoints" / "last"
    return (last if last.exists() else Path(path)).resolve()


def write_pretrained(folder: Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, which is created where it is missing.

    Raises:
        FileExistsError: the folder holds a checkpoint already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "config.json").exists():
        raise FileExistsError(f"{folder} holds a checkpoint already: choose another folder")
    save_file(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, folder / "model.safetensors"
    )
    document = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "sha256": _sha256(folder / "model.safetensors"),
        "config": config,
    }
    (folder / "config.json").write_text(json.dumps(document, indent=2) + "\n")


def read_config(folder: Path, kind: str) -> Mapping[str, Any]:
    """Read and check `config.json`: the whole document.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: another format version or kind, or damaged JSON.
    """
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {folder}: {path.name} is missing")
    try:
        document = json.loads(path.read_text())
        version = document["format_version"]
        if version == FORMAT_VERSION:  # another version may hold other keys
            found_kind, _, _ = (document[key] for key in ("kind", "sha256", "config"))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it or use another checkpoint") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has checkpoint format {version!r}, this version reads {FORMAT_VERSION}: "
            "use the version of shortcut-policy that wrote it"
        )
    if found_kind != kind:
        raise ValueError(f"{folder} holds a {found_kind!r}, not a {kind!r}")
    return document


def read_pretrained(folder: str | Path, kind: str) -> Pretrained:
    """Read a checkpoint folder and verify the weights against their recorded SHA-256.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another version or kind, or a damaged file.
    """
    folder = Path(folder)
    document = read_config(folder, kind)
    path = folder / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {folder}: {path.name} is missing")
    sha256 = _sha256(path)
    if sha256 != document["sha256"]:
        raise ValueError(f"{path} is damaged: its SHA-256 is {sha256[:12]}..., not {document['sha256'][:12]}...")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    return Pretrained(kind, document["config"], tensors, sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
