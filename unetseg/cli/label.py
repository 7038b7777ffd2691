"""``unetseg label``."""

import os
import signal
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_next
from unetseg.errors import Interrupted

_PAGE = "The page"
_NETWORK = "The network"


def label(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="Images, labelled or not.")],
    *,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
    train: Annotated[
        bool,
        Option(
            "--train/--no-train",
            help="Train a network behind the page, in rounds.",
            rich_help_panel=_NETWORK,
        ),
    ] = True,
    budget: Annotated[
        str,
        Option(
            "--budget",
            metavar="TIME",
            help="Time of a round, such as 90s or 5m.",
            rich_help_panel=_NETWORK,
        ),
    ] = "2m",
    start_from: options.FirstModel = None,
    run: Annotated[
        str,
        Option(
            "--run",
            metavar="NAME",
            help="Name of the run; wide means runs/wide.",
            rich_help_panel=_NETWORK,
        ),
    ] = "label",
    port: Annotated[
        int | None,
        Option(
            "--port",
            min=1,
            max=65535,
            help="Where the page is served.",
            show_default="8421, or a free one",
            rich_help_panel=_PAGE,
        ),
    ] = None,
    browser: Annotated[
        bool,
        Option("--browser/--no-browser", help="Open the page.", rich_help_panel=_PAGE),
    ] = True,
    host_name: Annotated[
        list[str] | None,
        Option(
            "--host-name",
            metavar="NAME",
            help="The name of a notebook server whose proxy shows the page; may be repeated.",
            show_default="localhost alone",
            rich_help_panel=_PAGE,
        ),
    ] = None,
) -> None:
    """Paint masks in a browser tab: a few strokes, correct, next image.

    The folder is a folder of labelled images at any moment: masks/ has a mask for each image, and
    classes.toml names the classes. Unpainted pixels are ignored. Ctrl-C ends the page; every stroke
    is saved by then.

    Over ssh, forward the port (ssh -L 8421:localhost:8421 HOST) and open the address here. On a
    notebook server with jupyter-server-proxy, open https://NAME/proxy/8421/?token=..., with the
    token printed here; --host-name NAME allows it.

    Example:
        unetseg label MYIMAGES/
        unetseg label MYIMAGES/ --from wide
        unetseg label MYIMAGES/ --port 9000 --no-browser
    """
    from unetseg.labelling.rounds import predict_line
    from unetseg.labelling.server import label_folder
    from unetseg.prediction.run_folder import RunFolder

    def show_address(address: str) -> None:
        display.pause()
        print_line(f"Open {address}")
        is_deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a shell's "&" wants it
        how = f"kill {os.getpid()}" if is_deaf else "Ctrl-C"
        print_line(f"{how} ends it; all that is painted is saved.")
        if browser and _has_screen():
            # It may wait until the browser is there, and this thread answers the browser.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    try:
        with ProgressDisplay() as display:
            label_folder(
                folder,
                classes=classes,
                ignored=options.ignored(ignore),
                port=port,
                hosts=host_name or (),
                run=run if train else None,
                budget=budget,
                start_from=start_from,
                on_progress=display,
                on_ready=show_address,
            )
    except Interrupted:  # its usual end
        if train and (line := predict_line(RunFolder(run))):
            print_next(line)
        raise


def _has_screen() -> bool:
    """Tell whether a browser would open where the person sits, and not in this terminal."""
    if "SSH_CONNECTION" in os.environ:
        return False
    shown = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return shown or sys.platform in ("win32", "darwin")
