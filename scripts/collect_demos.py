"""Let a scripted expert make a robomimic data set: `... task=lift episodes=60 output=data/lift.hdf5`.

The expert acts in the simulator, with its state before its eyes, seed after seed; episodes that succeed are kept, with
observations, images (`cameras=[agentview]`), delta and absolute actions. The table says in which ways the task was
done and how far these are apart. An interrupted collection is taken up again by the same command.
"""

import dataclasses
from typing import Any

from hydra_command import command
from resumable_command import resumable
from tqdm import tqdm

from shortcut_policy.collection import CollectionConfig, collect, format_report
from shortcut_policy.config import from_mapping


@command("collect_demos")
def main(values: dict[str, Any]) -> None:
    """Collect, or go on with what was interrupted."""
    values["task"] = values["task_name"]
    names = [field.name for field in dataclasses.fields(CollectionConfig)]
    config = from_mapping(CollectionConfig, {name: values[name] for name in names})
    with (
        resumable(config.output) as raise_lost_interrupt,
        tqdm(unit="demo", desc="collecting", leave=False, disable=None) as bar,
    ):

        def show(done: int, total: int) -> None:
            raise_lost_interrupt()
            bar.total = total
            bar.update(done - bar.n)

        report = collect(config, show)
    print(format_report(report))
    print(f"\n{config.output}: {len(report.seeds)} demos")


if __name__ == "__main__":
    main()
