"""Clusters under faults keep their promises; and the simulator would notice if they did not.

More seeds: ``KAVKA_SIMULATOR_SEEDS=1000 pytest tests/simulator``; one of them, event by event:
``python -m tests.simulator SEED``.
"""

import os
import subprocess
import sys

import pytest

from tests.simulator.mutants import MUTANTS, Mutant, broken
from tests.simulator.scenario import simulate

pytestmark = pytest.mark.simulator

SEEDS = int(os.environ.get("KAVKA_SIMULATOR_SEEDS", "12"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_promises_are_kept(seed: int) -> None:
    finding = simulate(seed)
    assert finding.problem is None, "\n".join(finding.trace[-80:])
    assert finding.acknowledged > 20


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    script = (
        "from tests.simulator.scenario import simulate; f = simulate(3); "
        "print(hash(0), len(f.trace), f.acknowledged, f.messages); print(*f.trace, sep='\\n')"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(runs) == 1


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_noticed(mutant: Mutant) -> None:
    """By the seed that is known to meet it; when runs have become other ones, by another."""
    with broken(mutant):
        seeds = (mutant.seed, *range(SEEDS * 5))
        assert any(simulate(seed).problem is not None for seed in seeds), mutant.rule
