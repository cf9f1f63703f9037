"""From evidence to a verdict: gates, the rule, the wording."""

from mesaprobe.verdict.gates import Gate, competence_gate, gates
from mesaprobe.verdict.rule import Verdict, decide

__all__ = ["Gate", "Verdict", "competence_gate", "decide", "gates"]
