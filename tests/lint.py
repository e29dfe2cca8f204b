"""Run ruff, mypy and import-linter over the project: ``python -m tests.lint``.

The source folders are installed under one import name by a package-dir mapping, which type
checkers and import-linter cannot see through. They are shown a tree of links that looks like
the installed package instead.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / ".lint"
MAPPED = ("config", "protocol", "storage", "replication", "broker")


def link_tree() -> Path:
    """Build ``.lint/kavka`` with the layout of the installed package; return ``.lint``."""
    shutil.rmtree(TREE, ignore_errors=True)
    package = TREE / "kavka"
    package.mkdir(parents=True)
    for entry in (ROOT / "kavka").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    for name in MAPPED:
        (package / name).symlink_to(ROOT / name)
    return TREE


def run(*command: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> bool:
    print("$", " ".join(command), flush=True)
    return subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}).returncode == 0


def main() -> int:
    tree = link_tree()
    scripts = Path(sys.executable).parent
    checks = [
        run(str(scripts / "ruff"), "check", "."),
        run(str(scripts / "ruff"), "format", "--check", "."),
        run(
            *(sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")),
            *("--cache-dir", str(ROOT / ".mypy_cache"), "-p", "kavka"),
            cwd=tree,
        ),
        run(
            *(str(scripts / "lint-imports"), "--config", str(ROOT / "pyproject.toml")),
            "--no-cache",
            cwd=tree,
            env={"PYTHONPATH": str(tree)},
        ),
    ]
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
