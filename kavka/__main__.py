"""``python -m kavka``."""

import gc
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process."""
    gc.disable()  # modules are there to stay: looking for garbage among them is time lost
    from kavka.broker.cli.main import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
