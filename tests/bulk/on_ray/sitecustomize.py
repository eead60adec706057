"""For the worker processes of a Ray cluster of the tests: they know the file system that fails."""

import os
from pathlib import Path

from tests.sources.faulty import LOG, Faulty, fail_often

fail_often()
faults = Faulty.rule
quiet = Path(os.environ[LOG]).with_name("quiet")
Faulty.rule = lambda number, path: None if quiet.exists() else faults(number, path)  # type: ignore[misc]
