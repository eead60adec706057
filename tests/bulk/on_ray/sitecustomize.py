"""For the worker processes of a Ray cluster of the tests: they know the file system that fails."""

from tests.sources.faulty import fail_often

fail_often()
