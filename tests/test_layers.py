"""The layers of the house, checked in two ways.

import-linter reads the source and sees every import, also those inside functions. What a process
has really loaded is asked from a process.
"""

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT / "src" / "snowmelt"

# These must import on a machine without torch. Backends that wrap torch are the exception.
_WITHOUT_TORCH = ["core", "presets", "audio", "text", "search", "runtime", "cli"]
_TORCH_BACKENDS = [
    "snowmelt.runtime.backends.torch_eager",
    "snowmelt.runtime.backends.torch_lm",
    "snowmelt.runtime.backends.torchscript",
]


def modules_of(package: str) -> list[str]:
    names = []
    for path in sorted((_PACKAGE / package).rglob("*.py")):
        relative = path.relative_to(_PACKAGE.parent).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        names.append(".".join(parts))
    return [name for name in names if name not in _TORCH_BACKENDS]


@pytest.mark.parametrize("package", _WITHOUT_TORCH)
def test_imports_without_torch(package):
    modules = modules_of(package)
    assert modules, f"src/snowmelt/{package} has no module"
    code = (
        "import importlib, sys\n"
        "sys.modules['torch'] = None  # any import of it now fails\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_contracts_are_kept():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_module_says_what_it_answers():
    """A module opens with a docstring; nobody has to guess what a file is for."""
    silent = [
        str(path.relative_to(_ROOT))
        for path in sorted(_PACKAGE.rglob("*.py"))
        if path.stat().st_size and not path.read_text(encoding="utf-8").startswith(('"""', 'r"""'))
    ]
    assert silent == []
