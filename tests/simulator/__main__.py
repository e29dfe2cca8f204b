"""Run seeds by hand: ``python -m tests.simulator FIRST COUNT``, or one seed and see its events."""

import logging
import sys

from tests.simulator.scenario import Finding, Plan, simulate


def tell(finding: Finding) -> None:
    outcome = finding.problem or "all is well"
    print(f"{finding.seed}: {outcome}; {finding.acknowledged} acknowledged {Plan.of(finding.seed)}")


def main() -> int:
    logging.getLogger("kavka").setLevel(logging.CRITICAL)
    numbers = [int(text) for text in sys.argv[1:]]
    if len(numbers) == 1:
        finding = simulate(numbers[0])
        print("\n".join(finding.trace))
        tell(finding)
        return finding.problem is not None
    first, count = numbers or (0, 20)
    bad = 0
    for seed in range(first, first + count):
        finding = simulate(seed)
        tell(finding)
        bad += finding.problem is not None
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
