"""``unetseg runs``."""

from unetseg.cli.console import print_line, print_table


def runs() -> None:
    """List all runs under runs/ with what they were trained on and how they score.

    Example:
        unetseg runs
    """
    from unetseg.prediction.run_folder import list_runs
    from unetseg.settings import RUNS
    from unetseg.text import format_duration, plural

    found = list_runs()
    if not found:
        print_line(f"No run under {RUNS}/ yet; start one: unetseg train")
        return
    columns = ["run", "state", "trained", "network", "images", "patches", "mean IoU", "time"]
    rows = []
    for one in found:
        card = one.card
        rows.append(
            (
                one.name,
                one.state,
                card and card.trained[:10],
                card and card.network,
                f"{one.images}, {plural(one.folds, 'fold')}" if one.folds else one.images,
                one.patches if one.patches is None else f"{one.patches:,}",
                one.mean_iou,
                one.seconds and format_duration(one.seconds),
            )
        )
    note = "mean IoU of the held-out images, with folds of all images; '-' where none is recorded"
    print_table("", columns, rows, note)
