"""Exit codes and messages of the command line, and how fast it can say what it does."""

import argparse
import errno
import io
import os
import re
import subprocess
import sys
import types

import pytest

import snowmelt
from snowmelt.cli import main as cli
from snowmelt.cli.arguments import add_bool
from snowmelt.core.errors import DataError


def run_snowmelt(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snowmelt", *words], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def command(monkeypatch):
    """Registers a subcommand `probe` whose `run` is the function given."""

    def register(run):
        module = types.ModuleType("snowmelt.cli.probe")
        module.add_parser = lambda subparsers: subparsers.add_parser("probe")
        module.run = run
        monkeypatch.setitem(sys.modules, "snowmelt.cli.probe", module)
        monkeypatch.setattr(cli, "COMMANDS", ("probe",))

    return register


def test_version():
    done = run_snowmelt("--version")
    assert (done.returncode, done.stdout) == (0, f"snowmelt {snowmelt.__version__}\n")


def test_help_names_every_command():
    done = run_snowmelt("--help")
    assert done.returncode == 0
    for name in cli.COMMANDS:
        assert re.search(rf"\n    {name}\s+\w", done.stdout), f"{name} or its help is missing"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_loads_no_heavy_library(name):
    """Each help in a fresh process: what it has loaded when it is done."""
    code = (
        "import sys\n"
        "from snowmelt.cli.main import main\n"
        f"code = main([{name!r}, '--help'])\n"
        "heavy = {'torch', 'numpy', 'lhotse', 'numba', 'soundfile', 'soxr', 'rich'}\n"
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert name in done.stdout
    assert done.stderr == ""


def test_importing_the_package_loads_neither_torch_nor_numpy():
    code = "import sys, snowmelt; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        snowmelt.nothing  # noqa: B018


@pytest.mark.parametrize("name", snowmelt.__all__)
def test_every_public_name_can_be_loaded(name):
    assert getattr(snowmelt, name) is not None


@pytest.mark.parametrize("words", [[], ["no-such-command"], ["probe", "--no-such-option"]])
def test_wrong_words_give_one_line_and_2(words, command, capsys):
    command(lambda args: 0)
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("snowmelt: error: ") and err.count("\n") == 1


def test_the_hint_names_the_help_that_lists_the_options(command, capsys):
    command(lambda args: 0)
    assert cli.main(["probe", "--no-such-option"]) == 2
    assert "--no-such-option (hint: see snowmelt probe --help)" in capsys.readouterr().err


def test_exit_code_of_the_command(command):
    command(lambda args: 0)
    assert cli.main(["probe"]) == 0


def test_user_error_is_one_line_and_2(command, capsys):
    def run(args):
        raise DataError("cut 7 has no transcript", hint="drop it")

    command(run)
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == ("snowmelt: error: cut 7 has no transcript (hint: drop it)\n")


def test_refusal_of_the_system_is_one_line_and_2(command, capsys):
    def run(args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "exp/epoch-1.pt")

    command(run)
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == ("snowmelt: error: exp/epoch-1.pt: No space left on device\n")


@pytest.mark.parametrize("bug", [RuntimeError("boom"), BrokenPipeError(errno.EPIPE, "a worker")])
def test_bug_is_a_traceback_and_1(bug, command, capsys):
    def run(args):
        raise bug

    command(run)
    assert cli.main(["probe"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "report it as CONTRIBUTING.md says" in err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")]
)
def test_too_little_memory_is_one_line_and_2(error, command, capsys):
    def run(args):
        raise error

    command(run)
    assert cli.main(["probe"]) == 2
    err = capsys.readouterr().err
    assert "memory is too small" in err and "--max-duration" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_swallows_what_is_printed(name, command, monkeypatch):
    def run(args):
        print("result", flush=True)
        return sys.stderr.isatty()

    command(run)
    monkeypatch.setattr(sys, name, None)
    assert cli.main(["probe"]) == 0
    getattr(sys, name).close()


def test_letters_that_standard_output_does_not_know(command, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    command(lambda args: print("\N{LOWER ONE EIGHTH BLOCK}EIGHT \udcff") or 0)
    assert cli.main(["probe"]) == 0
    assert written.getvalue() == b"\\u2581EIGHT \\udcff\n"


def test_interrupt_is_130(command, capsys):
    def run(args):
        raise KeyboardInterrupt

    command(run)
    assert cli.main(["probe"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_reader_that_leaves_is_no_error():
    """`snowmelt --help | head -0`, with more text than a pipe holds."""
    code = (
        "import sys, types\n"
        "from snowmelt.cli import main as cli\n"
        "probe = types.ModuleType('snowmelt.cli.probe')\n"
        "probe.add_parser = lambda subparsers: subparsers.add_parser('probe')\n"
        "probe.run = lambda args: print('x' * 1_000_000) or 0\n"
        "sys.modules['snowmelt.cli.probe'] = probe\n"
        "cli.COMMANDS = ('probe',)\n"
        "sys.argv = ['snowmelt', 'probe']\n"
        "cli.entry_point()\n"
    )
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write_end, stderr=subprocess.PIPE, timeout=60
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], False),
        (["--use-fp16"], True),
        (["--use-fp16", "1"], True),
        (["--use-fp16", "True"], True),
        (["--use-fp16=yes"], True),
        (["--use-fp16", "0"], False),
        (["--use-fp16", "False"], False),
    ],
)
def test_booleans_are_read_as_the_original_reads_them(words, value):
    parser = argparse.ArgumentParser()
    add_bool(parser, "--use-fp16", default=False, help="mixed precision")
    assert parser.parse_args(words).use_fp16 is value


def test_wrong_boolean(capsys):
    parser = argparse.ArgumentParser()
    add_bool(parser, "--use-fp16", default=False, help="mixed precision")
    with pytest.raises(SystemExit):
        parser.parse_args(["--use-fp16", "maybe"])
    assert "'maybe' is neither yes nor no" in capsys.readouterr().err
