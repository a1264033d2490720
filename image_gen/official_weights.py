"""The weights of the paper's code under the names of `image_gen.dit.DiT`, and the sizes that their shapes show."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Of DiT-S, -B, -L and -XL by their widths: the number of heads is the one size that no shape shows."""


def official_sizes(params: Mapping[str, np.ndarray], heads: int | None = None) -> dict[str, Any]:
    """Of a flat dictionary of official weights: `channels`, `num_classes` and `network`, the options of the DiT.

    Args:
        params: "DiTBlock_0/Dense_0/kernel" -> array.
        heads: of the attention; None for those of a DiT of this width.

    Raises:
        ValueError: weights are missing, or the heads are not known.
    """
    patch, _, channels, width = _get(params, "PatchEmbed_0/Conv_0/kernel").shape
    hidden = _get(params, "DiTBlock_0/MlpBlock_0/Dense_0/kernel").shape[1]
    if heads is None and width not in _HEADS:
        raise ValueError(f"no DiT has width {width}, so its heads are not known: say heads=...")
    return {
        "channels": channels,
        "num_classes": len(_get(params, "LabelEmbedder_0/Embed_0/embedding")) - 1,
        "network": {
            "patch": patch,
            "width": width,
            "depth": len({name.split("/")[0] for name in params if name.startswith("DiTBlock_")}),
            "heads": heads or _HEADS[width],
            "mlp_ratio": hidden / width,
            "compatibility": "official",
        },
    }


def convert_weights(params: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The state dict of a DiT with `compatibility="official"`, float32.

    The table `Embed_0` is left out: the official network computes a value from it that nothing uses.

    Raises:
        ValueError: a weight is missing.
    """
    state: dict[str, Tensor] = {}

    def dense(name: str, *sources: str) -> None:
        """Flax's kernels are (in, out); several become one below the other."""
        state[f"{name}.weight"] = torch.cat([_tensor(params, f"{source}/kernel").T for source in sources])
        state[f"{name}.bias"] = torch.cat([_tensor(params, f"{source}/bias") for source in sources])

    state["patches.weight"] = _tensor(params, "PatchEmbed_0/Conv_0/kernel").permute(3, 2, 0, 1)  # HWIO
    state["patches.bias"] = _tensor(params, "PatchEmbed_0/Conv_0/bias")
    state["label.weight"] = _tensor(params, "LabelEmbedder_0/Embed_0/embedding")
    for name, source in (("time", "TimestepEmbedder_0"), ("step_size", "TimestepEmbedder_1")):
        dense(f"{name}.1", f"{source}/Dense_0")
        dense(f"{name}.3", f"{source}/Dense_1")
    for number in range(len({name.split("/")[0] for name in params if name.startswith("DiTBlock_")})):
        block, source = f"blocks.{number}", f"DiTBlock_{number}"
        key, query, value = (f"{source}/Dense_{index}" for index in (1, 2, 3))
        dense(f"{block}.modulation", f"{source}/Dense_0")
        dense(f"{block}.attention.qkv", query, key, value)
        dense(f"{block}.attention.output", f"{source}/Dense_4")
        dense(f"{block}.mlp.0", f"{source}/MlpBlock_0/Dense_0")
        dense(f"{block}.mlp.2", f"{source}/MlpBlock_0/Dense_1")
    dense("modulation", "FinalLayer_0/Dense_0")
    dense("output", "FinalLayer_0/Dense_1")
    return {name: tensor.contiguous() for name, tensor in state.items()}


def without_labels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a DiT without classes: of the table of labels only the last row, the null label."""
    return {**state, "label.weight": state["label.weight"][-1:]}


def _get(params: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in params:
        raise ValueError(f"the checkpoint has no weight {name}: it is not one of the official DiT")
    return params[name]


def _tensor(params: Mapping[str, np.ndarray], name: str) -> Tensor:
    return torch.from_numpy(np.array(_get(params, name), dtype=np.float32))
