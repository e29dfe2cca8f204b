"""Settings of all tests."""

import os

from hypothesis import settings

# Continuous integration plays the same examples each time, so that a change is judged by what it
# does and not by its luck; everybody else draws new ones, and finds what is still to be found.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
