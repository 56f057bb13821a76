"""What becomes of damaged files? A process that loads one after the other and says so.

    python -m tests.fuzz.worker FOLDER FIRST LAST

For each case a line {"case": n} before it is tried, and one with its outcome after it. If a native
library ends the process, the lines say at which case; so does a case that takes a minute of
processor time, or more memory than there ever is reason for.

Invariant: a case is a function of its number. Nothing may look a name up for a pickle: that would
be the door to code in a file.
"""

import contextlib
import io
import json
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from snowmelt.core.errors import UserError
from tests.fuzz.damage import DAMAGES
from tests.fuzz.formats import LOADERS

__all__ = ["main"]

_SEED: Final = 20260807
_MOST_SECONDS: Final = 60.0
_MOST_BYTES: Final = 16 << 30

_looked_up: list[str] = []


def main(folder: Path, first: int, last: int) -> None:
    """Try cases `first` to `last - 1` on the files of a folder, which are whole again after it."""
    sys.addaudithook(_watch)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    for case in range(first, last):
        _say({"case": case})
        signal.setitimer(signal.ITIMER_PROF, _MOST_SECONDS)
        _say(_outcome(folder, case))


def _outcome(folder: Path, case: int) -> dict[str, Any]:
    names, damages = list(LOADERS), list(DAMAGES)
    name = names[case % len(names)]
    damage = damages[case // len(names) % len(damages)]
    path = folder / name
    healthy = path.read_bytes()
    path.write_bytes(DAMAGES[damage](healthy, np.random.default_rng((_SEED, case))))
    _looked_up.clear()
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("error")  # a warning is a second line
            LOADERS[name](path)
        outcome, text = "loaded", ""
    except UserError as error:
        outcome, text = "refused", str(error)
    except BaseException:
        outcome, text = "failed", traceback.format_exc()
    finally:
        path.write_bytes(healthy)
    if printed.getvalue():
        outcome, text = "failed", f"a library printed {printed.getvalue()}"
    if _looked_up:
        outcome, text = "failed", f"a pickle looked up {_looked_up}"
    return {"case": case, "file": name, "damage": damage, "outcome": outcome, "text": text}


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        _looked_up.append(".".join(map(str, arguments)))


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
