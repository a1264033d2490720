"""How often scripted experts succeed and how diverse they are: `... data=[data/lift.hdf5] result=results/experts.json`.

Read off the data sets that scripts/collect_demos.py made, which tell how many attempts they took.
"""

import json
from pathlib import Path
from typing import Any

from hydra_command import command

from shortcut_policy.config import to_mapping
from shortcut_policy.expert_results import ExpertResults, expert_table, measure_expert
from shortcut_policy.provenance import current_command, current_commit, installed_versions


@command("measure_experts")
def main(values: dict[str, Any]) -> None:
    """Measure, print the table, write the file."""
    paths = [values["data"]] if isinstance(values["data"], str) else values["data"]
    target = Path(values["result"]) if values["result"] else None
    if target is not None and target.exists() and not values["overwrite"]:
        raise FileExistsError(f"{target} exists: choose another result=, or say overwrite=true")
    rows = tuple(measure_expert(path) for path in paths)
    print(expert_table(rows))
    if target is not None:
        results = ExpertResults(target.stem, current_command(), current_commit(), installed_versions(), rows)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(to_mapping(results), indent=1) + "\n")


if __name__ == "__main__":
    main()
