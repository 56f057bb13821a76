"""What README.md promises: its Python example runs, its options exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snowmelt.cli.main import COMMANDS, build_parser
from tests.runtime.tiny import make_experiment

_README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
_EXAMPLES = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)


def test_python_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = _EXAMPLES
    make_experiment(tmp_path / "runs" / "demo")
    samples = 0.1 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write(tmp_path / "talk.wav", samples, 8000)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("so far:") == 10


def options_of_commands():
    texts = []
    for command in COMMANDS:
        parser = build_parser([command])
        texts.append(parser._subparsers._group_actions[0].choices[command].format_help())
    return set(re.findall(r"--[a-z0-9-]+", "\n".join(texts)))


def test_options_named_for_icefall_users_exist():
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in _README.splitlines()
        if row.startswith("|") and "--" in row and "---" not in row
    ]
    assert len(rows) > 10
    known = options_of_commands()
    for original, ours, _ in rows:
        promised = original if ours == "same" else ours
        missing = set(re.findall(r"--[a-z0-9-]+", promised)) - known
        assert not missing, f"{missing} promised in README.md, unknown to the commands"


@pytest.mark.parametrize(
    "line", re.findall(r"(?m)^ +(?:\S+ \| )?(?:\.venv/bin/)?(snowmelt .*)", _README)
)
def test_commands_can_be_parsed(line):
    words = line.split("#")[0].split()[1:]
    args = build_parser(words).parse_args(words)
    assert args.command == words[0]
