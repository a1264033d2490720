"""Put trained and evaluated policies on one HTML page: `... runs=[outputs/lift_shortcut_0] output=outputs/report.html`.

The page shows what was trained and on what, the curves, success and latency against the number of steps, and the
videos that the evaluations left. Nothing is measured: train with train_policy.py, evaluate with eval_policy.py first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra_command import command

from shortcut_policy.config import from_mapping
from shortcut_policy.report import read_runs, write_report


@dataclass(frozen=True)
class ReportConfig:
    """The values of `configs/make_report.yaml`."""

    runs: tuple[str, ...]
    output: str

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs=[] leaves nothing to report: give folders of runs")
        if Path(self.output).suffix != ".html":
            raise ValueError(f"output={self.output} does not name an HTML file: end it in .html")


@command("make_report")
def main(values: dict[str, Any]) -> None:
    """Read the runs and write the page."""
    if isinstance(values["runs"], str):
        values["runs"] = [values["runs"]]
    config = from_mapping(ReportConfig, values)
    write_report(Path(config.output), read_runs([Path(folder) for folder in config.runs]))
    print(f"report: {config.output}")


if __name__ == "__main__":
    main()
