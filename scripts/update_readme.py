"""Generate the README's tables and pictures from `results/`: `python scripts/update_readme.py`.

A table stands between `<!-- result: NAME -->` and `<!-- end -->`; its picture is docs/figures/NAME.png. An example
stands between `<!-- file: PATH -->` and `<!-- end -->`.
"""

import re
import sys
from pathlib import Path

from shortcut_policy.plots import score_and_latency
from shortcut_policy.results import markdown_table, read_result

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?P<head><!-- (?P<kind>result|file): (?P<name>\S+) -->\n).*?(?P<foot><!-- end -->)", re.DOTALL)


def render(readme: str, root: Path = ROOT) -> str:
    """The README with every block generated anew."""

    def block(match: re.Match[str]) -> str:
        if match["kind"] == "file":
            body = f"```python\n{(root / match['name']).read_text()}```"
        else:
            result = read_result(root / "results" / f"{match['name']}.json")
            body = f"{markdown_table(result)}\n\n![score and latency](docs/figures/{match['name']}.png)"
        return f"{match['head']}{body}\n{match['foot']}"

    return BLOCK.sub(block, readme)


def main() -> None:
    """Rewrite README.md and the pictures that it shows."""
    readme = ROOT / "README.md"
    text = render(readme.read_text())
    for match in BLOCK.finditer(text):
        if match["kind"] == "result":
            source = ROOT / "results" / f"{match['name']}.json"
            score_and_latency(read_result(source), ROOT / "docs" / "figures" / f"{match['name']}.png", source)
    readme.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
