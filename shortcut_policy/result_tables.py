"""Results as tables in Markdown, for the terminal, the README and reports."""

import re
from collections.abc import Sequence

from shortcut_policy.results import Result, Row

__all__ = [
    "commands_list",
    "comparison_table",
    "markdown_table",
    "objective_label",
    "objective_table",
    "policy_label",
    "policy_name",
    "usual_hardware",
]


def markdown_table(result: Result) -> str:
    """The table of the README."""
    lines = [
        f"| steps | score ({result.evaluation.metric}) | success rate | latency p50 | p99 |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.steps} | **{row.mean:.3f}** [{row.low:.3f}, {row.high:.3f}] "
        f"| {row.success:.2f} [{row.success_low:.2f}, {row.success_high:.2f}] "
        f"| {row.latency_ms_p50:.1f} ms | {row.latency_ms_p99:.1f} ms |"
        for row in result.rows
    ]
    training, evaluation = result.training, result.evaluation
    lines += [
        "",
        f"`{result.network}` ({training.parameters / 1e6:.1f} M parameters), {training.steps:,} updates in "
        f"{training.seconds / 60:.0f} min on {training.hardware}; training seeds {_join(training.seeds)}, "
        f"{evaluation.episodes} episodes each from seed {evaluation.first_seed}, checkpoint: "
        f"{evaluation.checkpoint.split(',')[0]}; 95 % intervals. Latency: one robot, on {result.hardware}.",
    ]
    if evaluation.noise_scale is not None:
        lines[-1] += f" Sampling began with noise of standard deviation {evaluation.noise_scale}."
    reruns = [f"{row.reruns} with {row.steps} steps" for row in result.rows if row.reruns]
    if reruns:
        lines[-1] += f" Episodes that ran again because a rollout worker died: {', '.join(reruns)}."
    return "\n".join(lines)


def policy_name(objective: str) -> str:
    """An objective or algorithm as it is called in prose."""
    names = {"bc_rnn_gmm": "BC-RNN-GMM", "mean_flow": "MeanFlow", "minimum_iterative": "minimum iterative (MIP)"}
    return names.get(objective, objective.replace("_", " "))


def objective_label(result: Result) -> str:
    """What a result is called in a comparison: by its preset or variant, of which an objective may have several."""
    named = re.fullmatch(rf"{re.escape(result.task)}_(?:comparison|one_step)_(?P<variant>.+)", result.name)
    return policy_name(named["variant"] if named else result.objective) + _noise_note(result)


def policy_label(result: Result) -> str:
    """What a result is called beside those of other policies, on one task or several: {task}_{label}, in words."""
    label = result.name.removeprefix(f"{result.task}_")
    return policy_name(label if label.startswith(result.objective) else result.objective) + _noise_note(result)


def _noise_note(result: Result) -> str:
    scale = result.evaluation.noise_scale
    return "" if scale is None else f", noise x {scale}"


def comparison_table(results: Sequence[Result]) -> str:
    """Several policies, on one task or several, side by side: success rates and intervals by number of steps."""
    counts = sorted({row.steps for result in results for row in result.rows})
    lines = [
        f"| task | policy | {' | '.join(map(str, counts))} | one step | training |",
        f"|:---|:---|{'---:|' * len(counts)}---:|:---|",
    ]
    for result in results:
        rows = {row.steps: row for row in result.rows}
        cells = [_success_cell(rows.get(steps)) for steps in counts]
        least, training = rows[min(rows)], result.training
        latency = f"{least.latency_ms_p50:.1f} ms"
        seeds = f"{len(training.seeds)} seeds x " if len(training.seeds) > 1 else ""
        lines.append(
            f"| {result.task} | {policy_label(result)} | {' | '.join(cells)} | {latency} "
            f"| {seeds}{training.steps:,} updates, {result.network} |"
        )
    numbers = [result.evaluation.episodes for result in results]
    usual = max(set(numbers), key=numbers.count)
    others = {f"{r.task}: {r.evaluation.episodes}": None for r in results if r.evaluation.episodes != usual}
    exceptions = f" ({', '.join(others)})" if others else ""
    episodes = f"{usual} episodes for every training seed{exceptions}"
    first_seeds = sorted({result.evaluation.first_seed for result in results})
    lines += [
        "",
        f"Success rate by number of network evaluations, with Wilson 95 % intervals over all episodes; "
        f"{episodes}, from seed {_join(first_seeds)}; last checkpoint. "
        f"*One step*: median latency of the fewest steps, one robot, on {results[0].hardware}.",
    ]
    return "\n".join(lines)


def objective_table(results: Sequence[Result]) -> str:
    """Objectives by rows and scores by numbers of steps, as the paper prints its comparison; the cost behind."""
    counts = sorted({row.steps for result in results for row in result.rows})
    lines = [
        f"| objective | {' | '.join(f'{n} step' + 's' * (n > 1) for n in counts)} | evaluations | time |",
        f"|:---|{'---:|' * len(counts)}---:|---:|",
    ]
    hardware = usual_hardware([result.training.hardware for result in results])
    seconds = [result.training.seconds for result in results if result.training.hardware == hardware]
    for result in results:
        rows = {row.steps: row for row in result.rows}
        cells = [score_cell(rows.get(steps)) for steps in counts]
        evaluations = result.training.evaluations_per_row
        cost = "" if evaluations is None else f"{evaluations:.3g}"
        time = f"{result.training.seconds / min(seconds):.1f}x" if result.training.hardware == hardware else ""
        lines.append(f"| {objective_label(result)} | {' | '.join(cells)} | {cost} | {time} |")
    first = results[0]
    updates = sorted({result.training.steps for result in results})
    networks = sorted({f"{result.network} ({result.training.parameters / 1e6:.1f} M)" for result in results})
    seeds = sorted({len(result.training.seeds) for result in results})
    lines += [
        "",
        f"{first.task}: {first.evaluation.metric} with 95 % intervals; {', '.join(networks)}, "
        f"{', '.join(f'{count:,}' for count in updates)} updates, {_join(seeds)} training seed"
        f"{'s' * (seeds != [1])} x {first.evaluation.episodes} episodes from seed {first.evaluation.first_seed}, last "
        "checkpoint. *Evaluations*: of the network, for a row of the batch and an update, the teacher's training "
        "included; the backward pass is not counted. *Time*: of the training, against the fastest "
        f"({min(seconds) / 60:.0f} min on {hardware}).",
    ]
    if len(seconds) < len(results):
        lines[-1] += " Times and latencies of other hardware are left out."
    return "\n".join(lines)


def usual_hardware(names: Sequence[str]) -> str:
    """The hardware of most of the results, whose times can be compared; of equally many, the first."""
    return max(dict.fromkeys(names), key=names.count)


def commands_list(results: Sequence[Result]) -> str:
    """The commands behind every row."""
    lines = [f"- {objective_label(r)}: `{r.training.command}`, `{r.command}`" for r in results]
    return "\n".join(["<details><summary>commands</summary>", "", *lines, "", "</details>"])


def score_cell(row: Row | None) -> str:
    """A score and its interval, or nothing where there is no row."""
    return "" if row is None else f"**{row.mean:.2f}** [{row.low:.2f}, {row.high:.2f}]"


def _success_cell(row: Row | None) -> str:
    return "" if row is None else f"**{row.success:.2f}** [{row.success_low:.2f}, {row.success_high:.2f}]"


def _join(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
