"""Variants of one training side by side: what differs, what one step scores against many, and why."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from shortcut_policy.result_tables import score_cell
from shortcut_policy.results import Result, Row
from shortcut_policy.statistics import paired_difference_interval

__all__ = ["differing_options", "recipe_table"]

NOT_OPTIONS = ("metadata", "seed", "progress", "logger", "log_every", "checkpoint_every", "keep_checkpoints")
"""What stands among the options of a training and changes no weight."""


def recipe_table(results: Sequence[Result]) -> str:
    """Scores by number of steps, one step less the most steps episode by episode, and the held-out figures.

    Args:
        results: of one task and the same episodes and steps; the first is what the others are compared with.
    """
    first = results[0]
    counts = sorted({row.steps for result in results for row in result.rows})
    heads = [*(f"{n} step" + "s" * (n > 1) for n in counts), f"1 - {counts[-1]} steps", "gap", "roughness", "residual"]
    lines = [f"| variant | {' | '.join(heads)} |", f"|:---|{'---:|' * len(heads)}"]
    for result in results:
        rows = {row.steps: row for row in result.rows}
        held_out = result.training.held_out
        figures = [_figure(held_out, "step_gap_1_steps", ".1f"), _figure(held_out, "roughness_1_steps", ".1f")]
        figures.append(_figure(held_out, "bootstrap_loss_1_steps", ".1e"))
        cells = [*(score_cell(rows.get(n)) for n in counts), _difference(rows[min(rows)], rows[max(rows)]), *figures]
        lines.append(f"| {differing_options(result, first)} | {' | '.join(cells)} |")
    seeds = sorted({len(result.training.seeds) for result in results})
    of_seeds = f"{', '.join(map(str, seeds))} training seed{'s' * (seeds != [1])}"
    demonstrated = _figure(first.training.held_out, "roughness_demonstrated", ".1f")
    lines += [
        "",
        f"{first.task}: {first.evaluation.metric} with 95 % intervals; `{first.network}` "
        f"({first.training.parameters / 1e6:.1f} M parameters), {first.training.steps:,} updates, {of_seeds} x "
        f"{first.evaluation.episodes} episodes from seed {first.evaluation.first_seed}, last checkpoint, unless a row "
        "says otherwise. On held-out windows, in the units of the data: *gap* of the chunks in one step to those in "
        f"the most steps from the same noise (rms), *roughness* of one-step chunks (rms second difference; "
        f"demonstrated: {demonstrated}), *residual*: mean square of what one step misses the target of "
        "its two half steps by, normalised.",
    ]
    return "\n".join(lines)


def differing_options(result: Result, first: Result) -> str:
    """The options in which a training differs from another, such as "base_steps 8, sigma_data 0.3"."""
    own, others = (dict(_flat({"steps": r.training.steps, **r.training.options})) for r in (result, first))
    names = [name for name in own | others if name.rpartition(".")[2] not in NOT_OPTIONS]
    changed = {name: own.get(name) for name in names if own.get(name) != others.get(name)}
    words = [f"`{name.rpartition('.')[2]}: {_word(value)}`" for name, value in changed.items()]
    if result.objective == first.objective:
        return ", ".join(words) or f"`{first.objective}`"
    return f"`{result.objective}`"


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _word(value: object) -> str:
    return "null" if value is None else str(value)


def _figure(held_out: Mapping[str, float], name: str, form: str) -> str:
    return format(held_out[name], form) if name in held_out else ""


def _difference(one: Row, many: Row) -> str:
    interval = paired_difference_interval(one.scores, many.scores)
    mean = float(np.mean([np.mean(seed) for seed in one.scores]) - np.mean([np.mean(seed) for seed in many.scores]))
    return f"{mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
