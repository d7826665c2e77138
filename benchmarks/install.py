"""What the base install weighs: bytes by package, and what a start of the agent loads.

Usage: .venv/bin/python benchmarks/install.py [--quick] [--json FILE]

Installs ``locks/device.txt`` and a wheel of this tree into a folder of its own (needs an index),
compiled as pip does it on a device: otherwise every start would compile what it imports. Bytes are
those of the wheels; the compiled files are shown beside them. Exit code 1 when a goal is missed.
Goals are bytes, and ratios to a bare Python on this machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
GOALS = {
    "all MB": 190.0,  # 165 measured: ONNX Runtime 62, NumPy 57, zstandard 23
    "edge-pack MB": 5.0,
    "packages": 30.0,
    "status / bare Python": 75.0,  # 61 measured
    "help / bare Python": 40.0,  # 32 measured; pydantic, by way of typer, is half of it
}
"""At most."""


def main() -> int:
    """Install, weigh, time; 0 when all goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer starts")
    parser.add_argument("--json", type=Path, help="write sizes and goals to this file")
    options = parser.parse_args()
    runs = 3 if options.quick else 15
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder))
        sizes = weigh(python)
        print(f"{'package':24} {'MB':>7}")
        for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
            if size > 100_000:
                print(f"{name:24} {size / 1e6:7.2f}")
        print(f"{'compiled files':24} {compiled_bytes(python) / 1e6:7.2f}")
        bare = seconds([python, "-I", "-c", "pass"], runs)
        starts = {
            "status": ["-m", "edge_agent", "status", "--help"],
            "help": ["-m", "edge_agent", "--help"],
            "runtime": ["-c", "import onnxruntime"],
            "numpy": ["-c", "import numpy"],
        }
        print(f"\n{'start, processor time':24} {'ms':>7} {'ratio':>7}")
        print(f"{'bare Python':24} {bare * 1e3:7.0f}")
        figures = {
            "all MB": sum(sizes.values()) / 1e6,
            "edge-pack MB": sizes["edge-pack"] / 1e6,
            "packages": float(len(sizes)),
        }
        for name, words in starts.items():
            taken = seconds([python, *words], runs)
            figures[f"{name} / bare Python"] = taken / bare
            print(f"{name:24} {taken * 1e3:7.0f} {taken / bare:7.1f}")
    print(f"\n{'goal':24} {'at most':>7} {'is':>7}")
    goals = {name: (figures[name], most, figures[name] <= most) for name, most in GOALS.items()}
    for name, (figure, most, met) in goals.items():
        print(f"{name:24} {most:7.0f} {figure:7.1f} {'' if met else 'MISSED'}")
    if options.json:
        found = {"bytes": sizes, "goals": goals}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(met for _, _, met in goals.values()) else 1


def install(folder: Path) -> Path:
    """The Python of a fresh virtual environment with what a device installs."""
    place = folder / "venv"
    python = place / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", place)
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder, TREE)
    options = ("--quiet", "--link-mode", "copy", "--compile-bytecode", "--python", python)
    run(UV, "pip", "install", *options, "--require-hashes", "-r", TREE / "locks" / "device.txt")
    run(UV, "pip", "install", *options, "--no-deps", "--no-index", *folder.glob("*.whl"))
    return python


def weigh(python: Path) -> dict[str, int]:
    """Bytes of each distribution, as its own record lists its files."""
    program = """
import importlib.metadata as metadata, json
print(json.dumps({
    each.name: sum(file.size or 0 for file in each.files or ())
    for each in metadata.distributions()
}))
"""
    found: dict[str, int] = json.loads(run(python, "-I", "-c", program))
    return found


def compiled_bytes(python: Path) -> int:
    """Bytes of the compiled files of an install."""
    return sum(path.stat().st_size for path in python.parents[1].rglob("*.pyc"))


def seconds(words: list[str | Path], runs: int) -> float:
    """The median processor time of a command, its files cached."""
    taken = []
    for _ in range(runs + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(*words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return sorted(taken[1:])[runs // 2]


def run(*words: str | Path) -> str:
    """What a command printed; it must end well."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
