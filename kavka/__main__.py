"""``python -m kavka``."""

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process."""
    from kavka.broker.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
