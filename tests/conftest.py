"""Options and settings of the whole test suite."""

import pytest
from hypothesis import settings

# The same examples in every run. To look for new ones: `pytest --hypothesis-profile=search`.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-goldens",
        action="store_true",
        help="write what is made now into tests/golden, to be reviewed as a diff",
    )
