"""Freshly drawn and labelled training batches, made by one worker: no peer makes them, so they stand beside the rate
asked for."""

import dataclasses
import time

from mesaprobe.bench.table import BENCHES, BenchRow, bench_row
from mesaprobe.training.config import PRESETS, resolved

ASKED = 20_000.0
"""Instances per second of processor time on one core, n = 8."""
BATCHES = 100


@BENCHES.register("labelled_batches_n8")
def labelled_batches_n8() -> BenchRow:
    """Left-to-right arms: optimal tours with the set of optimal next cities at every decision."""
    return _supply("labelled_batches_n8", "A0")


@BENCHES.register("masked_batches_n8")
def masked_batches_n8() -> BenchRow:
    """Editing arms: the same, and the cheapest fillings of the masked cities."""
    return _supply("masked_batches_n8", "A1")


def _supply(name: str, arm: str) -> BenchRow:
    from mesaprobe.training.stream import make_batch

    config = resolved(dataclasses.replace(PRESETS["matrix8-arm-a0"], arm=arm), 1)  # type: ignore[arg-type]
    make_batch(config, 0)  # compiles
    started = time.process_time()
    for step in range(BATCHES):
        make_batch(config, step)
    rate = BATCHES * config.batch_size / (time.process_time() - started)
    peer = "the rate asked for, per second of processor time"
    return bench_row(name, rate, "instances/s", peer, ASKED, goal=1.0)
