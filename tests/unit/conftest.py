"""Clean logs."""

import logging

import pytest
import structlog


@pytest.fixture
def logs_as_they_were():
    """Undoes what `configure_logs` did to the process."""
    handlers = logging.getLogger().handlers
    yield
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()
