"""How fast decisions are labelled."""

import time

import numpy as np

from mesaprobe.labels.decision_labels import label_decisions
from mesaprobe.labels.objectives import Objective
from mesaprobe.labels.values import decision_steps
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.solvers.exact.held_karp import held_karp


def states_per_second(
    config: ProblemConfig, instances: int = 400, seed: int = 0, objective: Objective = "shortest"
) -> float:
    """Decisions along optimal tours labelled per second of processor time on one core, all families of labels.

    What belongs to the whole instance (branch and bound takes most of it) is computed once for its decisions. A
    first run of two instances, which compiles, does not count.
    """
    batch = make_problem(config).draw(instances, np.random.default_rng(seed))
    tours = held_karp(batch.weights).tours
    steps = decision_steps(batch.problem)
    label_decisions(batch[:2], tours[:2], steps, objective=objective)
    started = time.process_time()
    label_decisions(batch, tours, steps, objective=objective)
    return instances * (steps.stop - steps.start) / (time.process_time() - started)
