"""What records and screens need to know of a metric, without torch: `MetricFacts`, and those of the project's own
metrics, of which `crowd/metrics.py` takes them."""

import attrs

HIGHER, LOWER = "higher", "lower"
"""Which of two values of a metric is the better one, as records say it."""


@attrs.frozen
class MetricFacts:
    """What is said of a metric that comes with the project."""

    name: str
    """Its name for people and records."""
    better: str
    """Which of two values is better: `HIGHER` or `LOWER`."""
    is_fraction: bool = False
    """Whether its values are parts of a whole, above 0 where they are good for something and at most 1: shown in
    percent."""


ACCURACY = MetricFacts("accuracy", HIGHER, is_fraction=True)
MACRO_F1 = MetricFacts("macro F1", HIGHER, is_fraction=True)
MEAN_ABSOLUTE_ERROR = MetricFacts("mean absolute error", LOWER)
ROOT_MEAN_SQUARED_ERROR = MetricFacts("root mean squared error", LOWER)
R2 = MetricFacts("R2", HIGHER)
MEAN_LOSS = MetricFacts("mean loss", LOWER)

BUILT_IN = (ACCURACY, MACRO_F1, MEAN_ABSOLUTE_ERROR, ROOT_MEAN_SQUARED_ERROR, R2, MEAN_LOSS)
FRACTIONS = frozenset(facts.name for facts in BUILT_IN if facts.is_fraction)
"""Names of the metrics whose values are shown in percent."""
