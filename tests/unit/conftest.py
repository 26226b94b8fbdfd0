"""How hard Hypothesis tries: little by default, `--hypothesis-profile=thorough` for a long night. And clean logs."""

import logging
import os

import pytest
import structlog
from hypothesis import HealthCheck, settings

_SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large)  # a busy machine is not a bug

# The same examples every time in CI: a red build there is a change's fault.
settings.register_profile(
    "quick", max_examples=60, deadline=None, derandomize="CI" in os.environ, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile("thorough", max_examples=1000, deadline=None, suppress_health_check=_SLOW_IS_FINE)
settings.load_profile("quick")


@pytest.fixture
def logs_as_they_were():
    """Undoes what `configure_logs` did to the process."""
    handlers = logging.getLogger().handlers
    yield
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()
