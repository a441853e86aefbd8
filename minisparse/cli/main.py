"""The command `minisparse`: finds the verb, imports its module, builds its parser and runs it.

Nothing here imports NumPy, so that `minisparse --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from minisparse import __version__
from minisparse.cli.arguments import Parser
from minisparse.cli.errors import DONE, report, silence_stdout
from minisparse.errors import UnknownNameError, UsageError, suggestion

VERBS = {
    "compare": "train methods at several sparsities and compare them: table, report, plots",
    "run": "train one network with one method, its settings as flags",
    "tickets": "lottery tickets against their controls; transfer, connectivity, alignment",
    "list": "what there is: methods, models, data, schedules, allocations, patterns, controls, formats",
    "explain": "a method's idea, equations and the lines that compute them; or an error code",
    "inspect": "per-layer table of a run or a saved network, or the tensors of a file",
    "report": "a report page of stored runs",
    "export": "write a run's network as safetensors, npz, scipy or csv",
    "sanity": "pruning at initialisation put to the test: controls, layer collapse, gradient flow",
    "sensitivity": "prune one layer at a time: which layers can spare weights",
    "study": "theory made visible: a figure and a table for one claim of the literature",
    "bench": "measure the time of training steps, kernels and curvature",
    "data": "list, fetch and verify data sets",
    "doctor": "versions, threads, caches and data of this machine, ready to paste",
}
VALUED = ("--out", "--seed", "--threads")


def overview() -> str:
    """The text of `minisparse --help`."""
    verbs = "\n".join(f"  {name:<11} {text}" for name, text in VERBS.items())
    return (
        "usage: minisparse COMMAND [OPTIONS]\n\n"
        "Sparse neural networks from scratch in NumPy, SciPy and Numba.\n\n"
        f"commands:\n{verbs}\n\n"
        "options:\n"
        "  -h, --help   this text; after a command, its options\n"
        "  --version    version number\n\n"
        "Start with: minisparse compare\n"
        "Results go to stdout, progress to stderr. Exit status: 0 done, 1 a run failed its checks,\n"
        "2 usage, 3 data or checkpoint, 4 grid incomplete, 130 interrupted."
    )


def split(tokens: Sequence[str]) -> tuple[str | None, list[str]]:
    """(verb, all other tokens); flags of every command may stand before the verb."""
    skip = False
    for at, token in enumerate(tokens):
        if not skip and not token.startswith("-"):
            return token, [*tokens[:at], *tokens[at + 1 :]]
        skip = token in VALUED
    return None, list(tokens)


def dispatch(tokens: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    verb, rest = split(tokens)
    if verb is None or (verb not in VERBS and {"-h", "--help", "--version"} & set(tokens[:1])):
        return without_verb(rest)
    if verb not in VERBS:
        hint = suggestion(verb, VERBS)
        raise UnknownNameError(
            f"unknown command {verb!r}: expected one of {', '.join(VERBS)}. {hint}See: minisparse --help"
        )
    module = import_module(f"minisparse.cli.{verb}")
    parser = Parser(verb, (module.__doc__ or "").strip(), rest)
    import_module("minisparse.cli.flags").add_global(parser)
    module.add_arguments(parser)
    args = parser.parse()
    with import_module("minisparse.cli.context").context(args):
        return module.run(args)


def without_verb(tokens: Sequence[str]) -> int:
    """Help and version."""
    if "--version" in tokens:
        print(f"minisparse {__version__}")
    elif not tokens or {"-h", "--help"} & set(tokens):
        print(overview())
    else:
        raise UsageError(f"command is missing: got {tokens[0]!r}, expected a command. See: minisparse --help")
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: never lets an exception through, except an exit asked for by the interpreter."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(tokens)
        sys.stdout.flush()
        return code
    except SystemExit as end:  # argparse after --help
        return end.code if isinstance(end.code, int) else DONE
    except BrokenPipeError:  # the reader has seen enough
        silence_stdout()
        return DONE
    except (Exception, KeyboardInterrupt) as error:
        return report(error, "--debug" in tokens)


if __name__ == "__main__":
    sys.exit(main())
