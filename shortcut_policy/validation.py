"""What is measured on held-out windows: the loss, and how far sampled chunks are from the demonstrated ones."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

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
def action_error(
    policy: Policy, batches: WindowSource, windows: int, num_steps: Sequence[int], seed: int = 0
) -> dict[int, float]:
    """Root mean square difference of sampled and demonstrated actions, in the data's units, by number of steps.

    Rotations are compared as the network sees them: a rotation vector near pi may differ in sign and be the same. Over
    the action steps that would be executed, padded ones left out; the noise is the same for every number.
    """
    config = policy.config
    executed = slice(-config.action_offset, -config.action_offset + config.action_steps)
    errors = {}
    for steps in num_steps:
        generator = torch.Generator(policy.device).manual_seed(seed)
        square, count = 0.0, 0
        for rows in batches.sequential(windows):
            chunk = policy.sample(rows.observation, steps, generator=generator)[:, : config.action_steps]
            real = ~rows.action_is_pad[:, executed]
            difference = (config.action_codec.encode(chunk) - rows.action[:, executed])[real]  # (real actions, A)
            square += float(difference.square().sum())
            count += difference.numel()
        errors[steps] = (square / max(1, count)) ** 0.5
    return errors


def validate(
    policy: Policy, network: nn.Module, batches: WindowSource, windows: int, num_steps: Sequence[int]
) -> Mapping[str, float]:
    """Held-out loss and action errors of the policy with the given weights, named for the log."""
    view = policy.with_network(network)
    losses = {f"valid/{name}": value for name, value in held_out_loss(view, batches, windows).items()}
    errors = action_error(view, batches, windows, num_steps)
    return losses | {f"valid/action_error_{steps}_steps": value for steps, value in errors.items()}
