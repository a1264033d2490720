"""What is measured on held-out windows: the loss, and how far sampled chunks are from the demonstrated ones."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives.base import Mean, Networks
from shortcut_policy.data.batches import WindowSource
from shortcut_policy.policy import Policy


@torch.no_grad()
def held_out_loss(policy: Policy, batches: WindowSource, windows: int, seed: int = 0) -> dict[str, float]:
    """The objective's loss and metrics over `windows` windows, on draws that are the same at every call.

    There is one draw, that of the training's end, of which every batch takes its rows: however small the last batch
    is, all levels are measured. The policy's own network stands for the student and for its EMA. An
    objective with a frozen teacher has no such loss: without that teacher it would be another.
    """
    if "teacher" in policy.objective.needs:
        return {}
    generator = torch.Generator(policy.device).manual_seed(seed)
    count = min(windows, batches.num_windows)
    draw = policy.objective.draw(torch.Size((count, *policy.chunk_shape)), 1.0, generator)
    sums: dict[str, Mean] = {}
    first = 0
    for rows in batches.sequential(windows):
        batch = policy.prepare(rows)
        last = first + len(batch.data)
        nets = Networks(*[BoundNetwork(policy.network, batch.condition, batch.null_condition)] * 3)
        loss = policy.objective.loss(nets, batch, draw.rows(slice(first, last)))
        total = Mean(loss.per_row.sum(), torch.full_like(loss.per_row.sum(), len(batch.data)))
        for name, part in {**loss.metrics, "loss": total}.items():
            sums[name] = sums[name] + part if name in sums else part
        first = last
    return {name: float(mean.total / mean.count) for name, mean in sums.items() if mean.count > 0}


@torch.no_grad()
def chunk_figures(
    policy: Policy, batches: WindowSource, windows: int, num_steps: Sequence[int], seed: int = 0
) -> dict[str, float]:
    """What sampled chunks look like beside the demonstrated ones, by number of steps; the noise is the same for all.

    All are root mean squares over the channels, in the data's units. Rotations are compared as the network sees them:
    a rotation vector near pi may differ in sign and be the same. Over the action steps that would be executed, padded
    ones left out.

    Returns:
        "action_error_{n}_steps": difference of sampled and demonstrated actions.
        "step_gap_{n}_steps": difference of the chunks in n and in the most steps, from the same noise.
        "roughness_{n}_steps", "roughness_demonstrated": second difference of successive actions; 0 on a straight line,
            left out where no three actions follow one another.
    """
    config = policy.config
    executed, most = slice(-config.action_offset, -config.action_offset + config.action_steps), max(num_steps)
    squares: dict[str, Mean] = {}

    def add(name: str, difference: Tensor, real: Tensor) -> None:
        part = Mean(difference[real].square().sum(), real.sum() * difference.shape[-1])
        squares[name] = squares[name] + part if name in squares else part

    generator = torch.Generator(policy.device).manual_seed(seed)
    others = {steps: torch.Generator(policy.device).manual_seed(seed + 1) for steps in num_steps}  # of re-noising
    for rows in batches.sequential(windows):
        real = ~rows.action_is_pad[:, executed]  # (B, Ta)
        bends = real[:, 2:] & real[:, 1:-1] & real[:, :-2]
        demonstrated = rows.action[:, executed]
        noise = torch.randn(len(real), *policy.chunk_shape, generator=generator, device=policy.device)
        chunks = {
            steps: config.action_codec.encode(
                policy.sample(rows.observation, steps, noise=noise, generator=others[steps])[:, : config.action_steps]
            )
            for steps in num_steps
        }
        add("roughness_demonstrated", demonstrated.diff(n=2, dim=1), bends)
        for steps, chunk in chunks.items():
            add(f"action_error_{steps}_steps", chunk - demonstrated, real)
            add(f"roughness_{steps}_steps", chunk.diff(n=2, dim=1), bends)
            if steps < most:
                add(f"step_gap_{steps}_steps", chunk - chunks[most], real)
    return {name: float(mean.total / mean.count) ** 0.5 for name, mean in squares.items() if mean.count > 0}


def validate(
    policy: Policy, network: nn.Module, batches: WindowSource, windows: int, num_steps: Sequence[int]
) -> Mapping[str, float]:
    """Held-out loss and figures of the chunks of the policy with the given weights, named for the log."""
    view = policy.with_network(network)
    figures = held_out_loss(view, batches, windows) | chunk_figures(view, batches, windows, num_steps)
    return {f"valid/{name}": value for name, value in figures.items()}
