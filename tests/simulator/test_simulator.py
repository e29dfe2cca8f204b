"""Clusters under faults keep their promises; and the simulator would notice if they did not.

More seeds: ``KAVKA_SIMULATOR_SEEDS=1000 pytest tests/simulator``; one of them, event by event:
``python -m tests.simulator SEED``.
"""

import os
import subprocess
import sys

import pytest

from tests.simulator.mutants import MUTANTS, PLANS, Mutant, broken
from tests.simulator.scenario import simulate

pytestmark = pytest.mark.simulator

MUTANT_SEEDS = 90
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
    """By one of some runs: which one, changes with every change of what is simulated."""
    with broken(mutant):
        runs = (simulate(seed, PLANS[seed % len(PLANS)]) for seed in range(MUTANT_SEEDS))
        assert any(finding.problem is not None for finding in runs), mutant.rule
