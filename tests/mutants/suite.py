"""A test module, or one test, that should fail: it exits with ``FOUND`` if a test fails."""

import pytest

from tests.mutants.places import FOUND

OPTIONS = (
    *("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:cov"),
    *("-p", "no:schemathesis", "--tb=short"),
)


def main(path: str) -> int:
    status = pytest.main([path, *OPTIONS])
    return FOUND if status == pytest.ExitCode.TESTS_FAILED else 0
