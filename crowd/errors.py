"""The errors of this project, by what the caller can do about them.

`CrowdError` → `Retryable` (try again: a supervisor restarts) | `Rejected` (the input is at fault: mend it).
"""


class CrowdError(Exception):
    """The root of all errors that this project raises on purpose."""


class Retryable(CrowdError):
    """A fault outside the caller, for now; the same call may succeed later."""


class BrokerLost(Retryable):
    """The connection to the broker has gone; open a new session."""


class AskTimeout(Retryable):
    """An actor did not answer in time."""


class ActorDied(Retryable):
    """The asked actor stopped before it answered."""


class MailboxFull(Retryable):
    """`tell_nowait` found no room in the mailbox."""


class Rejected(CrowdError):
    """A fault of the input; nothing was done."""


class MalformedMessage(Rejected):
    """Bytes from outside that are no valid message."""


class RunRefused(Rejected):
    """The next run cannot begin now."""


class InfeasiblePlan(Rejected):
    """A plan that breaks a device's rules or loses samples."""


class BadConfig(Rejected):
    """A configuration, argument or data set that cannot be used; the message says what, where and how to mend it."""


class BrokerRefused(BadConfig):
    """The broker cannot be reached at the start, or refuses this device (address, credentials, certificate)."""


class PublishDenied(BrokerRefused):
    """The broker does not let this device publish to one address."""


class TrainingDiverged(BadConfig):
    """The loss is no longer a finite number."""


def innermost(error: BaseException) -> BaseException:
    """The first of the errors that a group holds, however deep; any other error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


# --- exit codes -------------------------------------------------------------------------------------------------------

DONE, NOT_REACHED, BAD_INPUT, INTERNAL_ERROR, INTERRUPTED, NOBODY_READS = 0, 1, 2, 3, 130, 141
"""What a process of this project ends with. `NOT_REACHED`: the training is over, its target not met. `BAD_INPUT`: a
`Rejected`, whose text is the last line of standard error. `NOBODY_READS`: whoever read its output has gone, as `head`
does; that is what a shell shows of other programs then."""
