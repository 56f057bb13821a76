"""Machine code is kept between runs, and made anew when any file it was made from has changed."""

import os
import subprocess
import sys
from pathlib import Path

_CALLER = """
from callee import value
from snowmelt.core.compiled import compiled

@compiled
def doubled():
    return 2 * value()

print(doubled(), sum(doubled.stats.cache_hits.values()))
"""


def _run(folder: Path, value: int) -> str:
    folder.joinpath("callee.py").write_text(
        "from snowmelt.core.compiled import compiled\n\n"
        f"@compiled\ndef value():\n    return {value}\n"
    )
    folder.joinpath("caller.py").write_text(_CALLER)
    return subprocess.run(
        # Without bytecode: a change within the same second must be seen by Python, too.
        [sys.executable, "-B", "-c", "import caller"],
        cwd=folder,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_changed_callee_in_another_file_is_compiled_anew(tmp_path: Path) -> None:
    assert _run(tmp_path, 20) == "40 0"
    assert _run(tmp_path, 20) == "40 1"
    assert _run(tmp_path, 21) == "42 0"
