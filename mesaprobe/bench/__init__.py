"""The performance table: each row measured against a named peer in the same process, in interleaved rounds.

>>> [name for name in BENCHES if name.startswith("held_karp_n12")]
['held_karp_n12', 'held_karp_n12_python_tsp']
"""

from mesaprobe.bench import exact_values, labels, patch_sweep, probe_sweep, supply, tours_only, training_step  # noqa: F401
from mesaprobe.bench.table import BENCHES, BenchRow, bench_row, interleaved, markdown, rows

__all__ = ["BENCHES", "BenchRow", "bench_row", "interleaved", "markdown", "rows"]
