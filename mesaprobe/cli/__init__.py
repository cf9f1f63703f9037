"""The command line, one file a verb: parse, call, show progress, exit code. Heavy imports wait inside the verbs."""

import importlib
import sys
from collections.abc import Callable
from typing import cast

from mesaprobe.cli.words import VERBS
from mesaprobe.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `mesaprobe`: exit code 0, or 2 with one sentence for what a person can mend."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] == "--version":
        from mesaprobe import __version__

        print(__version__)
        return
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return
    try:
        if words[0] not in VERBS:
            raise UserError(f"unknown command {words[0]!r}; known: {', '.join(VERBS)}")
        _command(words[0])(words[1:])
    except UserError as error:
        print(f"mesaprobe: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("mesaprobe: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None


def _overview() -> str:
    rows = "\n".join(f"  {verb:<9} {text}" for verb, text in VERBS.items())
    return (
        "usage: mesaprobe COMMAND [OPTIONS]\n\nDoes a neural network search, or does it run heuristics?\n\n"
        f"commands:\n{rows}\n\n`mesaprobe COMMAND --help` shows the options of a command."
    )


def _command(verb: str) -> Callable[[list[str]], None]:
    """The function of a verb; only its own file is imported."""
    module = importlib.import_module(f"mesaprobe.cli.{'report' if verb == 'compare' else verb}")
    return cast("Callable[[list[str]], None]", getattr(module, verb))
