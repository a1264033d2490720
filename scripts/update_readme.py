"""Generate tables and pictures of README.md and docs/ from `results/`: `python scripts/update_readme.py`.

A table stands between `<!-- result: NAME -->` and `<!-- end -->`, several results in one table between
`<!-- comparison FIGURE: NAME NAME ... -->` and `<!-- end -->`; their pictures are docs/figures/NAME.png and FIGURE.png.
The other blocks end alike: `objectives FIGURE: NAME NAME ...` for objectives with one budget, with cost and commands,
`recipe FIGURE: NAME NAME ...` for variants of one training, `mixture FIGURE: NAME NAME ...` for objectives on the
mixture of Gaussians, `images FIGURE: NAME NAME ...` for generators, `image_speed: NAME NAME ...` for their speed,
`latency: NAME` for scores against latency, `speed: NAME` for latencies, `loop: NAME` for control loops,
`experts: NAME`, and `file: PATH` for examples.
"""

import os
import re
import sys
import textwrap
from pathlib import Path

from image_gen.grid import text_to_grid
from image_gen.image_results import image_table, read_image_result
from image_gen.image_speed import image_speed_table, read_image_speed
from shortcut_policy.expert_results import expert_table, read_expert_results
from shortcut_policy.latency_results import latency_table, read_latency_result
from shortcut_policy.loop_results import loop_table, read_loop_result
from shortcut_policy.mixture_results import mixture_table, read_mixture_result
from shortcut_policy.plots import comparison, image_samples, mixture_samples, score_against_latency, score_and_latency
from shortcut_policy.recipe_table import differing_options, recipe_table
from shortcut_policy.result_tables import (
    commands_list,
    comparison_table,
    markdown_table,
    objective_label,
    objective_table,
    policy_label,
    policy_name,
)
from shortcut_policy.results import read_result
from shortcut_policy.speed_results import read_speed_result, speed_table

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
KINDS = "result|comparison|objectives|recipe|mixture|images|image_speed|latency|speed|loop|experts|file"
BLOCK = re.compile(
    rf"(?P<head><!-- (?P<kind>{KINDS})(?: (?P<figure>\S+))?: (?P<names>[^>]+) -->\n).*?(?P<foot><!-- end -->)",
    re.DOTALL,
)


def sources_of(block: re.Match[str], root: Path = ROOT) -> list[Path]:
    """The results files that a block is made from."""
    return [root / "results" / f"{name}.json" for name in block["names"].split()]


def figure_of(block: re.Match[str]) -> str:
    """The name of its picture."""
    return block["figure"] or block["names"]


def table_of(block: re.Match[str], root: Path = ROOT) -> tuple[str, str]:
    """The table of results in Markdown, and the caption of its picture."""
    sources = sources_of(block, root)
    if block["kind"] == "mixture":
        return mixture_table([read_mixture_result(path) for path in sources]), "samples by objective and steps"
    if block["kind"] == "images":
        return image_table([read_image_result(path) for path in sources]), "samples by objective and steps"
    if block["kind"] == "latency":
        return latency_table(*map(read_latency_result, sources)), "score against latency"
    results = [read_result(path) for path in sources]
    if block["kind"] == "objectives":
        return f"{objective_table(results)}\n\n{commands_list(results)}", "score against steps and latency"
    if block["kind"] == "recipe":
        return recipe_table(results), "score against steps and latency"
    if block["kind"] == "comparison":
        return comparison_table(results), "success against steps and latency"
    return markdown_table(*results), "score and latency"


def picture_of(block: re.Match[str], root: Path = ROOT) -> bytes:
    """The picture of results, as PNG."""
    sources = sources_of(block, root)
    if block["kind"] == "mixture":
        return mixture_samples([read_mixture_result(path) for path in sources], sources=sources)
    if block["kind"] == "images":
        made = {policy_name(result.objective): result for result in map(read_image_result, sources)}
        grids = {name: {row.steps: text_to_grid(row.samples) for row in result.rows} for name, result in made.items()}
        titles = {name: {row.steps: f"{row.frechet:.2f}" for row in result.rows} for name, result in made.items()}
        return image_samples(grids, titles, sources)
    if block["kind"] == "latency":
        return score_against_latency(*map(read_latency_result, sources), sources)
    results = [read_result(path) for path in sources]
    if block["kind"] == "recipe":
        labels = [differing_options(result, results[0]).replace("`", "") for result in results]
        named = dict(zip(["\n".join(textwrap.wrap(label, 32)) for label in labels], results, strict=True))
        return comparison(named, sources, figure_of_merit="score")
    if block["kind"] == "objectives":
        named = {objective_label(result): result for result in results}
        return comparison(named, sources, figure_of_merit="score")
    if block["kind"] == "comparison":
        labelled = {f"{r.task}, {policy_label(r)}": r for r in results}
        if len(labelled) < len(results):
            raise ValueError(f"two of {', '.join(r.name for r in results)} have the same label: they need other names")
        return comparison(labelled, sources)
    return score_and_latency(*results, sources)


def render(page: str, root: Path = ROOT, figures: str = "docs/figures") -> str:
    """A page with every block generated anew; `figures` is where its pictures lie, as seen from the page."""

    def generate(block: re.Match[str]) -> str:
        if block["kind"] == "file":
            path = root / block["names"]
            body = f"```{path.suffix[1:].replace('py', 'python')}\n{path.read_text()}```"
        elif block["kind"] == "speed":
            (source,) = sources_of(block, root)
            body = speed_table(read_speed_result(source))
        elif block["kind"] == "loop":
            (source,) = sources_of(block, root)
            body = loop_table(read_loop_result(source))
        elif block["kind"] == "image_speed":
            body = image_speed_table([read_image_speed(source) for source in sources_of(block, root)])
        elif block["kind"] == "experts":
            (source,) = sources_of(block, root)
            body = expert_table(read_expert_results(source).rows)
        else:
            table, caption = table_of(block, root)
            body = f"{table}\n\n![{caption}]({figures}/{figure_of(block)}.png)"
        return f"{block['head']}{body}\n{block['foot']}"

    return BLOCK.sub(generate, page)


def figures_from(page: Path) -> str:
    """The folder of the pictures, as seen from a page."""
    return os.path.relpath(ROOT / "docs" / "figures", page.parent)


def main() -> None:
    """Rewrite README.md, the pages of docs/, and the pictures that they show."""
    for page in PAGES:
        text = render(page.read_text(), figures=figures_from(page))
        for block in BLOCK.finditer(text):
            if block["kind"] not in ("experts", "file", "image_speed", "loop", "speed"):
                (ROOT / "docs" / "figures" / f"{figure_of(block)}.png").write_bytes(picture_of(block))
        page.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
