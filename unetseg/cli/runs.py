"""``unetseg runs``."""

from unetseg.cli.console import print_line, print_table


def runs() -> None:
    """List all runs under runs/ with their training images and scores.

    Example:
        unetseg runs
    """
    from unetseg.prediction.run_folder import list_runs, table_of_runs
    from unetseg.settings import RUNS

    found = list_runs()
    if not found:
        print_line(f"No run under {RUNS}/ yet; start one: unetseg train")
        return
    print_table(*table_of_runs(found))
