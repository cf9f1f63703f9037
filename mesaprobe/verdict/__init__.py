"""From evidence to a verdict: the score and its calibration on the zoo, gates, the rule, the error table.

| file | what |
|---|---|
| vector | the ten components of the evidence vector, ranked within the zoo |
| score | sign-constrained ridge logistic score, leave one family out |
| likelihood | likelihood ratio, its cost and its cap |
| conformal | class-conditional p-values, one member a family |
| calibration | these four, fitted to the records of a zoo |
| gates | conditions that keep the rule from being applied where it has no error rate |
| rule | SEARCH, HEURISTIC, INCONCLUSIVE and why |
| error_table | false-SEARCH, false-HEURISTIC and their bounds, attacks |
| benchmarks | accuracy, architecture, single lines, other cuts beside the full battery |
| table | the error table stored and in words |
| store | the records that ship, checked against the present protocol |
| subject | the verdict of one analysed network |
"""

from mesaprobe.verdict.gates import Gate
from mesaprobe.verdict.rule import Verdict
from mesaprobe.verdict.subject import decide

__all__ = ["Gate", "Verdict", "decide"]
