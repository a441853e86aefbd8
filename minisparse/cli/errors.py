"""What the user sees when something goes wrong: one line on stderr and an exit status.

0 done; 1 a run failed its checks, or an unforeseen error; 2 usage; 3 data or checkpoint;
4 the grid is incomplete; 130 interrupted
"""

from __future__ import annotations

import os
import sys
import traceback

from minisparse.errors import MinisparseError, MinisparseWarning

UNFINISHED = "finished runs are kept; the same command goes on from there"
DONE, FAILED, INCOMPLETE, INTERRUPTED = 0, 1, 4, 130


def report(error: BaseException, debug: bool) -> int:
    """Print the error's line (and its traceback with `debug`) and return the exit status."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    print(line(error), file=sys.stderr)
    return status(error)


def line(error: BaseException) -> str:
    """The one line for an error."""
    text = " ".join(str(error).split())
    if isinstance(error, MinisparseError):
        return f"minisparse: error[{error.code}]: {text}"
    if isinstance(error, KeyboardInterrupt):
        return f"minisparse: interrupted: {text or UNFINISHED}"
    if isinstance(error, MinisparseWarning):
        return f"minisparse: error: {text} (a warning, and --strict is on)"
    if isinstance(error, OSError) and error.strerror:
        where = f" {str(error.filename)!r}" if error.filename is not None else ""
        return f"minisparse: error: system call failed{where}: got '{error.strerror}'."
    kind = type(error).__name__
    return (
        f"minisparse: error: unforeseen {kind}: {text.rstrip('.')}. Run again with --debug for the traceback."
    )


def status(error: BaseException) -> int:
    """The shell's exit status for an error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_status if isinstance(error, MinisparseError) else FAILED


def silence_stdout() -> None:
    """After a broken pipe: let the interpreter's last flush go nowhere instead of complaining."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open to the end of the process
