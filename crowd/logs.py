"""The log of a process of this project: `logs_to_stderr`."""

import sys


def logs_to_stderr(*, verbose: bool = False) -> None:
    """Send structlog's events to standard error, warnings and above only unless `verbose`: standard output is for the
    result."""
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbose else logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
