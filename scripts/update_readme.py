"""Generate the README's tables and pictures from `results/`: `python scripts/update_readme.py`.

A table stands between `<!-- result: NAME -->` and `<!-- end -->`, several results in one table between
`<!-- comparison FIGURE: NAME NAME ... -->` and `<!-- end -->`; their pictures are docs/figures/NAME.png and FIGURE.png.
A table of the experts stands between `<!-- experts: NAME -->` and `<!-- end -->`, an example between
`<!-- file: PATH -->` and `<!-- end -->`.
"""

import re
import sys
from pathlib import Path

from shortcut_policy.expert_results import expert_table, read_expert_results
from shortcut_policy.plots import comparison, score_and_latency
from shortcut_policy.results import comparison_table, markdown_table, policy_name, read_result

ROOT = Path(__file__).parents[1]
KIND = r"(?P<kind>result|comparison (?P<figure>\S+)|experts|file)"
BLOCK = re.compile(
    rf"(?P<head><!-- {KIND}: (?P<names>[^>]+) -->\n).*?(?P<foot><!-- end -->)",
    re.DOTALL,
)


def sources_of(block: re.Match[str], root: Path = ROOT) -> list[Path]:
    """The results files that a block is made from."""
    return [root / "results" / f"{name}.json" for name in block["names"].split()]


def figure_of(block: re.Match[str]) -> str:
    """The name of its picture."""
    return block["figure"] or block["names"]


def render(readme: str, root: Path = ROOT) -> str:
    """The README with every block generated anew."""

    def generate(block: re.Match[str]) -> str:
        if block["kind"] == "file":
            body = f"```python\n{(root / block['names']).read_text()}```"
        elif block["kind"] == "experts":
            (source,) = sources_of(block, root)
            body = expert_table(read_expert_results(source).rows)
        else:
            results = [read_result(path) for path in sources_of(block, root)]
            if block["figure"]:
                table, caption = comparison_table(results), "success against steps and latency"
            else:
                table, caption = markdown_table(*results), "score and latency"
            body = f"{table}\n\n![{caption}](docs/figures/{figure_of(block)}.png)"
        return f"{block['head']}{body}\n{block['foot']}"

    return BLOCK.sub(generate, readme)


def main() -> None:
    """Rewrite README.md and the pictures that it shows."""
    readme = ROOT / "README.md"
    text = render(readme.read_text())
    for block in BLOCK.finditer(text):
        if block["kind"] in ("experts", "file"):
            continue
        sources = sources_of(block)
        results = [read_result(path) for path in sources]
        if block["figure"]:
            names = [f"{result.task}, {policy_name(result.objective)}" for result in results]
            picture = comparison(dict(zip(names, results, strict=True)), sources)
        else:
            picture = score_and_latency(*results, sources)
        (ROOT / "docs" / "figures" / f"{figure_of(block)}.png").write_bytes(picture)
    readme.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
