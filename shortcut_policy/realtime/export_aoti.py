"""AOTInductor: a policy compiled to native code for this kind of machine, in one file that torch loads.

A .pt2 package is a shared library that is run as it is loaded: load only your own.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from shortcut_policy.nn.matrix_convolutions import with_matrix_convolutions
from shortcut_policy.policy import Policy
from shortcut_policy.realtime.chunk_module import ChunkFunction, ChunkModule
from shortcut_policy.realtime.compiled_policy import MATRIX_BATCH
from shortcut_policy.realtime.export import TOLERANCE, Exported, check_target, write_checked


def export_aoti(
    policy: Policy,
    path: str | Path,
    num_steps: int = 1,
    batch_size: int = 1,
    *,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    checkpoint_sha256: str | None = None,
) -> Exported:
    """Compile a policy ahead of time, for its device, into a package and compare that with the policy.

    `load_aoti` makes a function of the package. In C++ it takes the tensors of `ChunkModule.forward`: in the order of
    the metadata's observations, then the noise.

    Args:
        policy: on the device that shall run the package.
        path: ends with ".pt2".
        num_steps: network evaluations per chunk, all in the package.
        batch_size: B, of every call.
        tolerance: the largest difference from the policy that passes, as a share of the actions' range.
        overwrite: whether a file may be replaced.
        checkpoint_sha256: of the weights, for the metadata.

    Raises:
        FileExistsError: the file is there already.
        ValueError: the path, the number of steps or of rows cannot be, there is no C++ compiler, or the actions differ
            from the policy's; then no file is written.
    """
    path = check_target(path, ".pt2", overwrite)
    if batch_size is None or batch_size < 1:
        raise ValueError(f"batch_size of a package must be a positive number, got {batch_size}")
    _require_compiler()
    module, compiled = ChunkModule(policy, num_steps), ChunkModule(policy, num_steps)
    if policy.device.type == "cpu" and batch_size <= MATRIX_BATCH:
        with_matrix_convolutions(compiled.policy.network)
    program = torch.export.export(compiled, module.example(batch_size, seed=0))
    values = module.metadata(batch_size, checkpoint_sha256)
    metadata = {name: json.dumps(value) for name, value in values.items()}

    def write(file: Path) -> None:
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(file), inductor_configs={"aot_inductor.metadata": metadata}
        )

    return write_checked(path, module, write, load_aoti, batch_size, tolerance)


def load_aoti(path: str | Path) -> ChunkFunction:
    """Load a package. It is native code: load only your own.

    The function raises a ValueError for arrays of another shape or type: the package itself would read past their end.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no package {path}")
    package = torch._inductor.aoti_load_package(str(path))
    metadata = package.get_metadata()
    names = ("observations", "observation_steps", "batch_size", "noise_shape")
    observations, steps, batch, (draws, *chunk) = (json.loads(metadata[name]) for name in names)
    device = metadata["AOTI_DEVICE_KEY"]
    expected = {key: ((batch, steps, *spec["shape"]), spec["dtype"]) for key, spec in observations.items()}
    expected["noise"] = (draws, batch, *chunk), "float32"

    def sample(observation: Mapping[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
        tensors = []
        for key, (shape, dtype) in expected.items():
            array = noise if key == "noise" else observation[key]
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{key!r} must be {dtype} of shape {shape}, got {array.dtype} of {array.shape}")
            tensors.append(torch.from_numpy(np.ascontiguousarray(array)).to(device))
        return package(*tensors).cpu().numpy()

    return sample


def _require_compiler() -> None:
    names = [name for name in torch._inductor.config.cpp.cxx if name]
    if not any(shutil.which(name) for name in names):
        raise ValueError(
            f"AOTInductor needs a C++ compiler, and there is no {' or '.join(names)}: install g++, name yours in the "
            "environment variable CXX, or export to ONNX"
        )
