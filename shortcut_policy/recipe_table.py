"""Variants of one training side by side: what differs, what one step scores against many, and why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from shortcut_policy.core.objectives import objective_class
from shortcut_policy.result_tables import score_cell, usual_hardware
from shortcut_policy.results import Result, Row
from shortcut_policy.statistics import paired_difference_interval

__all__ = ["differing_options", "recipe_table"]

NOT_OPTIONS = ("metadata", "seed", "progress", "logger", "log_every", "checkpoint_every", "keep_checkpoints")
"""What stands among the options of a training and changes no weight."""


def recipe_table(results: Sequence[Result]) -> str:
    """Scores by number of steps, one step less the most steps episode by episode, and the held-out figures.

    Args:
        results: of one task and the same episodes; the first is what the others are compared with.
    """
    first = results[0]
    counts = sorted({row.steps for result in results for row in result.rows})
    most = {max(row.steps for row in result.rows) for result in results}
    heads = [*(f"{n} step" + "s" * (n > 1) for n in counts)]
    heads.append(f"{counts[0]} - {counts[-1]} steps" if len(most) == 1 else f"{counts[0]} - most steps")
    heads += ["gap", "roughness", "residual", "time"]
    lines = [f"| variant | {' | '.join(heads)} |", f"|:---|{'---:|' * len(heads)}"]
    hardware = usual_hardware([result.training.hardware for result in results])
    for result in results:
        rows, training = {row.steps: row for row in result.rows}, result.training
        cells = [*(score_cell(rows.get(n)) for n in counts), _difference(rows.get(counts[0]), rows[max(rows)])]
        cells += [_figure(training.held_out, f"{name}_1_steps", ".1f") for name in ("step_gap", "roughness")]
        cells.append(_figure(training.held_out, "bootstrap_loss_1_steps", ".1e"))
        cells.append(f"{training.seconds / 60:.0f} min" if training.hardware == hardware else "")
        lines.append(f"| {differing_options(result, first)} | {' | '.join(cells)} |")
    seeds = f"{len(first.training.seeds)} training seed{'s' * (len(first.training.seeds) > 1)}"
    demonstrated = _figure(first.training.held_out, "roughness_demonstrated", ".1f")
    lines += [
        "",
        f"{first.task}: {first.evaluation.metric} with 95 % intervals; `{first.network}` "
        f"({first.training.parameters / 1e6:.1f} M parameters), {first.training.steps:,} updates, {seeds} x "
        f"{first.evaluation.episodes} episodes from seed {first.evaluation.first_seed}, last checkpoint, unless a row "
        "says otherwise. On held-out windows, in the units of the data: *gap* of the chunks in one step to those in "
        "the most steps of the validation from the same noise (rms), *roughness* of one-step chunks (rms second "
        f"difference; demonstrated: {demonstrated}), *residual*: mean square of what one step misses the target of its "
        f"two half steps by, normalised; of few rows, and so a rough figure. *Time*: of the training, {hardware}.",
    ]
    return "\n".join(lines)


def differing_options(result: Result, first: Result) -> str:
    """The options in which a training differs from another, such as "base_steps 8, sigma_data 0.3".

    An option that an older file does not have had its default.
    """
    own, others = (dict(_flat(_options(one))) for one in (result, first))
    if result.objective != first.objective:
        prefix = "objective."
        own, others = ({k: v for k, v in one.items() if not k.startswith(prefix)} for one in (own, others))
    names = [name for name in own | others if name.rpartition(".")[2] not in NOT_OPTIONS]
    changed = {name: own.get(name) for name in names if own.get(name) != others.get(name)}
    words = [f"`{name.rpartition('.')[2]}: {_word(value)}`" for name, value in changed.items()]
    if result.objective != first.objective:
        words.insert(0, f"`{result.objective}`")
    return ", ".join(words) or f"`{first.objective}`"


def _options(result: Result) -> dict[str, Any]:
    training = result.training
    known: dict[str, Any] = {
        "training seeds": len(training.seeds),
        "updates": training.steps,
        **training.options,
        "noise_scale": _noise_scale(result),
    }
    objective = training.options.get("objective", {})
    defaults = {f.name: f.default for f in fields(objective_class(result.objective)) if f.default is not MISSING}
    known["objective"] = {**objective, "options": {**defaults, **objective.get("options", {})}}
    trainer = {name: value for name, value in training.options.get("trainer", {}).items() if name != "steps"}
    return known | {"trainer": trainer}


def _noise_scale(result: Result) -> float | None:
    """None for 1; some files have it among the options of the training."""
    scale = result.evaluation.noise_scale
    scale = result.training.options.get("noise_scale") if scale is None else scale
    return None if scale == 1.0 else scale


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


def _difference(one: Row | None, many: Row) -> str:
    if one is None or one is many or not (one.scores and many.scores):
        return ""
    interval = paired_difference_interval(one.scores, many.scores)
    mean = float(np.mean([np.mean(seed) for seed in one.scores]) - np.mean([np.mean(seed) for seed in many.scores]))
    return f"{mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
