"""Kills a run at random moments and resumes it, many times; the weights must be the same. Not a part of the suite.

    python tests/finetune/soak_resume.py [--kills 100] [--seed 0]

A round starts the small run of run_to_kill.py in a process of its own, sends SIGKILL after a random time, and does so
again with ``resume`` until the run is complete. Prints one line a round, and exits with 1 where a hash differs.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import run_to_kill
from run_to_kill import NAME, RECIPES, sha256

from ovit_deploy.working_folder import is_resumable, partial_folder


def main() -> None:
    """Soak until so many kills hit a run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    expected: dict[str, str] = {}
    seconds: dict[str, float] = {}
    kills = 0
    while kills < arguments.kills:
        recipe = draw.choice(sorted(RECIPES))
        with tempfile.TemporaryDirectory() as folder:
            if recipe not in expected:
                started = time.monotonic()
                assert run_to_kill.in_a_process(begin, Path(folder), recipe) == 0
                seconds[recipe] = time.monotonic() - started
                expected[recipe] = sha256(Path(folder))
                continue
            here = _round(Path(folder), recipe, seconds[recipe], draw)
            same = sha256(Path(folder)) == expected[recipe]
        kills += here
        print(f"{kills:4d} kills  {recipe:15s} {here} in this run: {'same' if same else 'DIFFERENT'}", flush=True)
        if not same:
            sys.exit(1)


def begin(runs: Path, recipe: str) -> None:
    """Start the run, or go on with it where there is a checkpoint."""
    run_to_kill.go(runs, recipe, resume=is_resumable(partial_folder(NAME, runs)))


def _round(runs: Path, recipe: str, seconds: float, draw: random.Random) -> int:
    """Kill and go on until the run is complete; how many kills hit it."""
    kills = 0
    while not (runs / NAME).exists():
        process = run_to_kill.start(begin, runs, recipe)
        process.join(draw.uniform(0.2, 1.2) * seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0, process.exitcode
    return kills


if __name__ == "__main__":
    main()
