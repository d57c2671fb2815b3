"""Which runtime serves a model: measured, checked against the original, kept for the next start."""

from node.runtimes.select.choosing import Candidate, ChoiceReport, Trial
from node.runtimes.select.opening import Choice, open_runtime

__all__ = ["Candidate", "Choice", "ChoiceReport", "Trial", "open_runtime"]
