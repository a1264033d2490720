"""Step sizes: the dyadic grid, what the network is told of a step's size, and the drawing of (level, t).

A step of size d = 2^-level is "of level `level`": level 0 crosses the whole path in one step, level
log2(base_steps) is the smallest step. Times on the grid of a level are multiples of its step size, so that all
numbers here are exact in float32.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

FlowStep = Literal["zero", "smallest"]
LevelDraw = Literal["balanced", "uniform", "official"]


@dataclass(frozen=True)
class DyadicSteps:
    """The dyadic step sizes 1, 1/2, ..., 1/base_steps.

    Args:
        base_steps: number of smallest steps on the path, a power of two (the paper: 128).
        flow_step: what the network is told for a step of the smallest size or finer: "zero" tells d = 0, the
            instantaneous velocity (the paper's text); "smallest" tells 1/base_steps (the paper's code).
    """

    base_steps: int = 128
    flow_step: FlowStep = "zero"

    def __post_init__(self) -> None:
        if self.base_steps < 1 or self.base_steps & (self.base_steps - 1):
            raise ValueError(f"base_steps must be a power of two, got {self.base_steps}")
        if self.flow_step not in ("zero", "smallest"):
            raise ValueError(f"flow_step must be 'zero' or 'smallest', got {self.flow_step!r}")

    @property
    def finest_level(self) -> int:
        """log2(base_steps): the level of the smallest step."""
        return int(math.log2(self.base_steps))

    @property
    def flow_d(self) -> float:
        """The d that stands for the flow itself: 0 or 1/base_steps."""
        return 0.0 if self.flow_step == "zero" else 1.0 / self.base_steps

    def told(self, size: Tensor) -> Tensor:
        """The d that the network is given for steps of `size` (any shape): `flow_d` for the smallest and finer."""
        return torch.where(size > 1.0 / self.base_steps, size, self.flow_d)

    def schedule(self, num_steps: int) -> list[tuple[float, float]]:
        """Times and sizes (t, size) of `num_steps` steps from t = 0 to t = 1.

        A power of two up to base_steps gives equal steps of a trained size. Any other number up to base_steps
        gives dyadic steps too: of the next coarser level, those nearest to the data are halved until the count is
        right (3 steps: 1/2, 1/4, 1/4), so that every step has a trained size at a trained time. More than
        base_steps gives equal steps finer than trained, told as `flow_d`: Euler on the flow.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        if num_steps > self.base_steps:
            return uniform_schedule(num_steps)
        coarse = 2 ** int(math.log2(num_steps))
        halved = num_steps - coarse
        sizes = [1.0 / coarse] * (coarse - halved) + [0.5 / coarse] * (2 * halved)
        times = [math.fsum(sizes[:i]) for i in range(num_steps)]
        return list(zip(times, sizes, strict=True))


def uniform_schedule(num_steps: int) -> list[tuple[float, float]]:
    """Times and sizes (t, size) of `num_steps` equal steps from t = 0 to t = 1."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return [(i / num_steps, 1.0 / num_steps) for i in range(num_steps)]


def draw_levels(rows: int, num_levels: int, how: LevelDraw, generator: torch.Generator) -> Tensor:
    """Draw the levels 0 .. num_levels - 1 of `rows` bootstrap rows (rows,), int64.

    Args:
        how: "balanced": every level equally often, the remainder at distinct random levels, in random order;
            "uniform": independently; "official": the layout of the paper's code, rows // num_levels rows for each
            level from the finest to the coarsest and what is left at level 0 (with fewer rows than levels, only
            level 0 is ever trained).
    """
    device = generator.device
    if how == "uniform":
        return torch.randint(num_levels, (rows,), generator=generator, device=device)
    each, left = divmod(rows, num_levels)
    if how == "official":
        descending = torch.arange(num_levels - 1, -1, -1, device=device).repeat_interleave(each)
        return torch.cat([descending, torch.zeros(left, dtype=torch.int64, device=device)])
    if how == "balanced":
        every = torch.arange(num_levels, device=device).repeat(each)
        some = torch.randperm(num_levels, generator=generator, device=device)[:left]
        levels = torch.cat([every, some])
        return levels[torch.randperm(rows, generator=generator, device=device)]
    raise ValueError(f"levels must be 'balanced', 'uniform' or 'official', got {how!r}")


def draw_grid_times(levels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw for every level a time uniformly from {0, d, 2d, ..., 1 - d}, d = 2^-level: (rows,) float32."""
    cells = torch.exp2(levels.float())
    uniform = torch.rand(levels.shape, generator=generator, device=levels.device)
    # float32 rounding can lift u * cells to cells itself when u is the largest number below 1
    return torch.minimum(torch.floor(uniform * cells), cells - 1) / cells


def spread_rows(rows: int, fraction: float) -> Tensor:
    """Choose round(fraction * rows) of `rows` rows, evenly spread: (rows,) bool on the CPU.

    Evenly, so that each slice of the batch (a rank's, a micro-batch's) holds its share.
    """
    chosen = round(fraction * rows)
    index = torch.arange(rows + 1) * chosen // rows
    return index[1:] > index[:-1]
