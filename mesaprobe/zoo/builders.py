"""Looped constructive rules: the insertion rules, greedy edge, savings, mst_preorder and edge_scorer.

One block, used over and over, adds one city or one edge to a partial tour (`models.tour_builder`), each loop
supervised on the rule's own next step. The shell is that of the looped searchers (stream, loops, hooks, a learnt
score, a soft maximum), so that it tells nothing of the class (method.md section 6.2 and amendment 6), and its
members are the good heuristics that accuracy must be crossed with. They hold plans honestly (amendment 5): the tour
is whole before its first city is named. But they price steps, not tours, and never compare two completions.

The edge scorer (`edge_scorer`) is greedy edge with a learnt order: no rule's choices but edges of optimal tours are its
lesson, so that it is as good as a constructive rule of this shape gets.
"""

from mesaprobe.models.config import TourBuilderConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import BuiltTours
from mesaprobe.zoo.edge_scorer import edge_scorer, scores_edges_alone
from mesaprobe.zoo.members import ZOO, Member, Taught
from mesaprobe.zoo.reference import rule

LOOPS = 8


def builder(teacher: str, kind: str, steps: int, *, loops: int = LOOPS, seed: int = 0, n: int = 8) -> Course:
    """A builder of `matrix` tours, each loop supervised."""
    return Course(
        lesson=BuiltTours(rule=teacher),
        problem=ProblemConfig(n=n),
        model=TourBuilderConfig(n_layers=loops, steps=kind),  # type: ignore[arg-type]
        optimiser=OptimiserConfig(learning_rate=1e-2, warmup_steps=50),
        steps=steps,
        batch_size=32,
        evaluate_every=100,
        seed=seed,
    )


for _teacher, _kind, _steps, _words in (
    ("cheapest_insertion", "insertion", 1500, "inserts the city that makes the tour grow least"),
    ("nearest_insertion", "insertion", 1500, "inserts the city nearest to the tour where it grows least"),
    ("farthest_insertion", "insertion", 1500, "inserts the city farthest from the tour where it grows least"),
    ("greedy_edge", "edges", 1500, "adds the cheapest edge that still fits a tour"),
    ("savings", "edges", 1500, "joins the two routes from city 0 whose joining saves most"),
    ("mst_preorder", "tree", 1500, "hangs a city on the minimum spanning tree, the last walks on along it"),
):
    ZOO.add(
        _name := f"{_teacher}-loop",
        Member(
            name=_name,
            family=_teacher,
            role="heuristic",
            degree=ALGORITHMS[_teacher].degree,
            mechanism=f"the looped shell: each loop {_words}",
            recipe=Taught(builder(_teacher, _kind, _steps)),
            reference=rule(_teacher),
        ),
    )

ZOO.add(
    "edge_scorer-loop",
    Member(
        name="edge_scorer-loop",
        family="edge_scorer",
        role="heuristic",
        degree=2,
        mechanism="the looped shell: each loop adds the edge of the best score, which knows local quantities of it "
        "alone and was fitted to optimal tours",
        recipe=Taught(edge_scorer()),
        reference=None,
        structure=scores_edges_alone,
    ),
)
