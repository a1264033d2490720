"""ONNX: one graph from observations to actions, which onnxruntime runs without torch (`examples/run_onnx.py`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shortcut_policy.policy import Policy
from shortcut_policy.realtime.chunk_module import ChunkFunction, ChunkModule
from shortcut_policy.realtime.export import TOLERANCE, Exported, check_target, write_checked

OPSET = 18


def export_onnx(
    policy: Policy,
    path: str | Path,
    num_steps: int = 1,
    batch_size: int | None = 1,
    *,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    checkpoint_sha256: str | None = None,
) -> Exported:
    """Write a policy as an ONNX file (opset 18) and compare it, run by onnxruntime, with torch.

    The graph's inputs are one tensor (B, To, *shape) for each observation, by its key, in the data's units (float32,
    images uint8), and `noise` (n, B, T, A), standard normal; n is 1 but for samplers that noise again. Its output is
    `actions` (B, T', E), the action for the newest observation first. The file's metadata (`ChunkModule.metadata`, as
    JSON) say what these sizes are.

    Args:
        policy: on the CPU.
        path: ends with ".onnx".
        num_steps: network evaluations per chunk, all in the graph.
        batch_size: B, or None for any.
        tolerance: the largest difference from torch that passes, as a share of the actions' range.
        overwrite: whether a file may be replaced.
        checkpoint_sha256: of the weights, for the metadata.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is missing.
        FileExistsError: the file is there already.
        ValueError: the path, the number of steps or of rows cannot be, an observation has the name of another input,
            the policy is not on the CPU, or the actions differ from torch's; then no file is written.
    """
    path = check_target(path, ".onnx", overwrite)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be positive, or null for any, got {batch_size}")
    if policy.device.type != "cpu":
        raise ValueError(f"the policy must be on the CPU to be exported to ONNX, not on {policy.device}: load it there")
    module = ChunkModule(policy, num_steps)
    onnx, _ = _packages()
    model = _graph(module, batch_size)
    metadata = module.metadata(batch_size, checkpoint_sha256)
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    return write_checked(
        path, module, lambda file: onnx.save(model, file), load_onnx, batch_size or 3, tolerance
    )  # 3: not the number of rows with which a graph for any was traced


def load_onnx(path: str | Path) -> ChunkFunction:
    """Load an ONNX file into onnxruntime, on the CPU, with as many threads as torch has.

    Raises:
        ImportError: onnxruntime is missing.
        FileNotFoundError: there is no such file.
    """
    _, onnxruntime = _packages()
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no ONNX file {path}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of what it merely computes at run time
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def sample(observation: Mapping[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
        return session.run(["actions"], {**observation, "noise": noise})[0]

    return sample


def _graph(module: ChunkModule, batch_size: int | None) -> Any:
    """The module as an ONNX model, without the traces of the machine that made it."""
    # a dimension that is traced as 1 is taken to be 1 for good
    arguments = module.example(batch_size or 2, seed=0)
    rows = None if batch_size else torch.export.Dim("batch", min=1)
    shapes = ((*[{0: rows}] * len(module.keys), {1: rows}),) if rows else None
    program = torch.export.export(module, arguments, dynamic_shapes=shapes)
    names = [*module.keys, "noise"]
    exported = torch.onnx.export(
        program, dynamo=True, input_names=names, output_names=["actions"], opset_version=OPSET, verbose=False
    )
    assert exported is not None
    model = exported.model_proto
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces with the paths of this machine: half of a small file
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = "batch"
    return model


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx works with it
    except ImportError as error:
        raise ImportError(
            f"ONNX files need onnx, onnxscript and onnxruntime ({error}): pip install -e '.[export]'"
        ) from error
    return onnx, onnxruntime
