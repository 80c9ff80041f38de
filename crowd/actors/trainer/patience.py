"""When what a round lacks is late on one device, and when it asks for it: `Patience`. Pure; integer microseconds."""

from collections import Counter, deque
from collections.abc import Collection

from crowd.actors.trainer.deadlines import Deadlines
from crowd.planning.plan import Plan
from crowd.units import SECOND_US, DeviceId

DEADLINES_MAX = 3
"""Missed deadlines after which a silent owner is reported."""
HELD_UP_AGAIN_US = SECOND_US
"""The period in which it is reported for whom the round in hand waits."""
QUESTION_US_MIN = SECOND_US // 10
"""What a question for a slice and its answer take at least, beside two round trips."""
FIRST_PATIENCE_US = SECOND_US
"""What a first round, of which plans know little, is given at least."""
LATELY_ROUNDS = 3
"""Of so many rounds the longest tells when a slice is late."""
QUESTIONS_IN_A_ROW, BACKOFF_EXPONENT_MAX = 4, 5
"""Questions for a slice after which the pause before the next one doubles, and how often it does."""


class Patience:
    """The clocks of the rounds of one generation."""

    def __init__(self, plan: Plan, deadlines: Deadlines, *, rtt_us: int = 0) -> None:
        """`deadlines` outlive generations; messages take `rtt_us` to come back."""
        self._span_us = plan.round_us
        """Planned microseconds of the round in hand."""
        self._deadlines = deadlines
        self._question_us = QUESTION_US_MIN + 2 * rtt_us
        self._lately_us: deque[int] = deque(maxlen=LATELY_ROUNDS)
        """How long the last complete rounds took here."""
        self._began_us: dict[int, int] = {}
        self._asked_us: dict[int, int] = {}
        self._questions: Counter[int] = Counter()
        self.since_us = 0
        """When the round in hand began to wait, whatever owners said since."""
        self.report_us = 0
        """When it is next to be reported for whom it waits."""

    # --- clocks -------------------------------------------------------------------------------------------------------

    def begin(self, number: int, span_us: int, now_us: int) -> None:
        """Round `number`, planned to take `span_us`, is the one in hand from now on."""
        self._span_us = span_us
        self._began_us = {known: at for known, at in self._began_us.items() if known >= number - 1}
        self._start(number, now_us)
        self._asked_us, self._questions = {}, Counter()

    def restart(self, number: int, now_us: int) -> None:
        """Nobody is to blame for what did not come to round `number`, the one in hand, until now."""
        if self.has_begun(number):
            self._start(number, now_us)
        self._asked_us = {}

    def _start(self, number: int, now_us: int) -> None:
        self._began_us[number] = self.since_us = now_us
        self.report_us = now_us + max(self.patience_us(number), HELD_UP_AGAIN_US)

    def has_begun(self, number: int) -> bool:
        return number in self._began_us

    def began_us(self, number: int) -> int:
        return self._began_us[number]

    def heard(self, sender: DeviceId, number: int, now_us: int) -> None:
        """A trainer's contribution made for round `number` has come."""
        if self.has_begun(number):
            self._deadlines.observe(sender, now_us - self._began_us[number])

    def merged(self, number: int, missing: Collection[DeviceId]) -> None:
        """Own slices of round `number` are merged without these trainers."""
        self._deadlines.merged(number, missing)

    def excuse(self, number: int, now_us: int) -> None:
        """What round `number` lacks is not late yet."""
        if self.has_begun(number):
            self._began_us[number] = max(self._began_us[number], now_us - self.patience_us(number))

    def completed(self, number: int, now_us: int) -> None:
        if self.has_begun(number):
            self._lately_us.append(now_us - self._began_us[number])

    # --- what is due --------------------------------------------------------------------------------------------------

    def deadline_us(self, number: int) -> int:
        """The time at which contributions to the round are due."""
        return self._began_us.get(number, 0) + self._deadlines.deadline_us(self._span_us)

    def patience_us(self, number: int) -> int:
        """Microseconds from the start of the round in hand until what is missing is late: by the last rounds here, in a
        first one by its deadline; at least what a question takes."""
        if self._lately_us:
            return max(self._span_us, max(self._lately_us) * 7 // 4, self._question_us)
        return max(self.deadline_us(number) - self._began_us[number], self._question_us, FIRST_PATIENCE_US)

    def ask_due_us(self, number: int, index: int) -> int:
        """The time at which to ask for slice `index` of the round in hand."""
        patience_us = self.patience_us(number)
        asked_us = self._asked_us.get(index)
        if asked_us is None:
            return self._began_us[number] + patience_us
        exponent = min(max(0, self._questions[index] - QUESTIONS_IN_A_ROW), BACKOFF_EXPONENT_MAX)
        return asked_us + (patience_us // 2 << exponent)

    def ask(self, number: int, index: int, now_us: int) -> bool:
        """Note a question for slice `index` of the round in hand; returns whether its owner, which has answered none,
        is to be called silent. It is asked on: a question may have been lost."""
        self._asked_us[index] = now_us
        self._questions[index] += 1
        overdue = now_us - self._began_us[number] >= DEADLINES_MAX * self.patience_us(number)
        return self._questions[index] > 1 and overdue
