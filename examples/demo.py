"""From recordings to words in one go: prepare, train, decode both ways, listen.

Every step is a command that is printed before it runs, so that it can be repeated by hand. A demo
that was interrupted goes on where it was.

    python examples/demo.py            the whole demo, some minutes on two cores
    python examples/demo.py --short    a minute of it, to see that everything works
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from snowmelt.train.history import draw_curves


def main() -> int:
    """Run all steps; the exit code of the first one that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="train for some seconds only")
    parser.add_argument("--exp-dir", type=Path, help="output folder (default: runs/demo…)")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="(default: data)")
    args = parser.parse_args()
    exp_dir: Path = args.exp_dir or Path("runs") / ("demo-short" if args.short else "demo")
    data_dir: Path = args.data_dir
    started = time.monotonic()

    _say("1. Prepare the digits: 3,000 recordings of ten digits by six speakers")
    _snowmelt("prepare", "digits", "--data-dir", data_dir)

    _say("2. Train a small streaming Zipformer from scratch")
    brevity = ["--num-epochs", "1"] if args.short else []
    _snowmelt(
        *("train", "--preset", "digits", "--exp-dir", exp_dir, "--data-dir", data_dir),
        *("--resume", "auto", *brevity),
    )
    curve = exp_dir / "training-curve.png"
    draw_curves(exp_dir, curve)
    print(f"training curve: {curve}")

    _say("3. Decode 200 test strings: whole utterances with the streaming mask")
    # The number of epochs to average was chosen on the dev strings.
    choice = ["--avg", "1" if args.short else "3", "--splits", "test"]
    _snowmelt("decode", "--exp-dir", exp_dir, "--data-dir", data_dir, *choice)

    _say("4. Decode them again as live streams, chunk by chunk")
    _snowmelt("streaming-decode", "--exp-dir", exp_dir, "--data-dir", data_dir, *choice)
    _print_table(exp_dir)

    _say("5. Listen to one test string as it is spoken")
    sound = sorted((data_dir / "digits" / "test").glob("*.wav"))[0]
    _snowmelt("transcribe", "--model", exp_dir, "--live", sound)

    if args.short:
        print("\nAll steps run. This model has learnt too little to find words: try make demo.")
    print(f"\ndone in {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _snowmelt(*words: str | Path) -> None:
    command = ["snowmelt", *map(str, words)]
    print("$ " + " ".join(command), flush=True)
    done = subprocess.run([sys.executable, "-m", *command], check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


def _print_table(exp_dir: Path) -> None:
    print("\n| decoding | WER % |\n| --- | --- |")
    for name, folder in (
        ("whole utterances (simulated streaming)", exp_dir / "greedy_search"),
        ("chunk by chunk (real streaming)", exp_dir / "streaming" / "greedy_search"),
    ):
        for path in sorted(folder.glob("wer-summary-*.txt")):
            for line in path.read_text(encoding="utf-8").splitlines()[1:]:
                print(f"| {name} | {line.split(chr(9))[1]} |")


if __name__ == "__main__":
    sys.exit(main())
