"""Looped local search, and nearest neighbour in the same shell: families two_opt, or_opt and nearest_neighbour.

One block, used over and over, rewrites a whole tour (`models.tour_refiner`). The searchers' loops are supervised on
best improvement (method.md section 6.1, P3 and P4); the negative's on a walk that goes on to the nearest city, one
step a loop, so that the shell itself tells nothing of the class (amendment 6).
"""

from mesaprobe.models.config import TourRefinerConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import TourStates
from mesaprobe.zoo.intended_states import Tours
from mesaprobe.zoo.members import ZOO, Member, Taught
from mesaprobe.zoo.reference import rule

LOOPS = 8


def refiner(moves: str, choice: str, steps: int, *, loops: int = LOOPS, seed: int = 0, n: int = 8) -> Course:
    """A refiner of `matrix` tours, each loop supervised."""
    return Course(
        lesson=TourStates(choice=choice),  # type: ignore[arg-type]
        problem=ProblemConfig(n=n),
        model=TourRefinerConfig(n_layers=loops, moves=moves),  # type: ignore[arg-type]
        optimiser=OptimiserConfig(learning_rate=1e-2, warmup_steps=50),
        steps=steps,
        batch_size=32,
        evaluate_every=100,
        seed=seed,
    )


for _moves, _steps, _words in (
    ("two_opt", 1200, "turns round the path of its tour that gains most"),
    ("or_opt", 800, "moves the path of up to three cities whose move gains most"),
):
    ZOO.add(
        _name := f"{_moves}-loop",
        Member(
            name=_name,
            family=_moves,
            role="search",
            degree=4,
            mechanism=f"completes the tour in the order of the cities, then {_words}, {LOOPS} times",
            recipe=Taught(refiner(_moves, "cheapest", _steps)),
            reference=(_tours := Tours(_moves, "cheapest", LOOPS)),
            states=_tours,
        ),
    )
ZOO.add(
    "nearest_neighbour-loop",
    Member(
        name="nearest_neighbour-loop",
        family="nearest_neighbour",
        role="heuristic",
        degree=1,
        mechanism="the looped shell: each loop brings the nearest free city to the next slot of its tour",
        recipe=Taught(refiner("two_opt", "nearest_next", 1600)),
        reference=rule("nearest_neighbour"),
    ),
)
