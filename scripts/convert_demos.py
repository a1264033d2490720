"""Turn recordings with simulator states into a robomimic data set: `... input=demo.hdf5 output=data/lift.hdf5`.

Low-dim observations, images (`cameras=[agentview]`) and absolute actions come from replaying the states in the
installed simulator; the table says for every demo whether its actions, too, still do the task when they are replayed.
An interrupted conversion is taken up again by the same command.
"""

from typing import Any

from hydra_command import command
from resumable_command import resumable
from tqdm import tqdm

from shortcut_policy.config import from_mapping
from shortcut_policy.conversion import ConversionConfig, convert, format_report


@command("convert_demos")
def main(values: dict[str, Any]) -> None:
    """Convert, or go on with what was interrupted."""
    config = from_mapping(ConversionConfig, values)
    with (
        resumable(config.output) as raise_lost_interrupt,
        tqdm(unit="step", desc="replaying", leave=False, disable=None) as bar,
    ):

        def show(done: int, total: int) -> None:
            raise_lost_interrupt()
            bar.total = total
            bar.update(done - bar.n)

        report = convert(config, show)
    print(format_report(report))
    print(f"\n{config.output}: {sum(demo.written for demo in report.demos)} demos")


if __name__ == "__main__":
    main()
