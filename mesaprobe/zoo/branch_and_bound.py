"""Looped branch and bound, the one member that truly backtracks: family branch_and_bound (`models.tree_searcher`).

In the same shell a negative, which gives up every node once it has one completion: nearest neighbour (amendment 6).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mesaprobe.instruments.erasure import fit_erasure
from mesaprobe.instruments.interchange import Interchange
from mesaprobe.models.config import TreeSearcherConfig
from mesaprobe.models.subject import Subject
from mesaprobe.models.tree_searcher import place
from mesaprobe.problems import Instances, ProblemConfig
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import SearchStates
from mesaprobe.training.search_states import exact_search
from mesaprobe.zoo.intended_states import stream_site, tie_breaks
from mesaprobe.zoo.members import ZOO, Member, Taught
from mesaprobe.zoo.reference import rule
from mesaprobe.zoo.searcher_certificates import States

LOOPS = 24


@dataclass(frozen=True)
class Nodes:
    """The node of the search tree that the stream holds after every loop."""

    loops: int

    @property
    def words(self) -> str:
        """What they are, and where."""
        return "the search node (path, tried children, best completion) after a loop, any but the last"

    def __call__(
        self, instances: Instances, tours: np.ndarray, rng: np.random.Generator
    ) -> Bool[np.ndarray, "batch decision n"]:
        """The cities that the algorithm allows, however it breaks ties: the certificate's reference."""
        n = tours.shape[1]
        current, free = place(torch.from_numpy(tours[:, :-1]), n)
        allowed = np.zeros((len(tours), n - 1, n), dtype=bool)
        for weights in tie_breaks(instances, rng):
            last = exact_search(as_fractions(weights), current, free, self.loops)[-1]
            allowed |= (last.best[:, :, 0] > 0.5).numpy()
        return allowed

    def exchanged(
        self, subject: Subject, base: States, source: States, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "batch n"], Bool[np.ndarray, "batch n"]]:
        """The node after a random loop is the source's."""
        n = subject.problem.n
        after = rng.integers(n - 1, self.loops - 1, size=len(base.tours))  # no sooner than there is a best completion
        logits = torch.empty(len(base.tours), n)
        wanted = np.zeros(logits.shape, dtype=bool)
        for loop in np.unique(after):
            rows = np.flatnonzero(after == loop)
            ours, theirs = base[rows], source[rows]
            logits[rows] = Interchange.at(subject, ours.run, theirs.run, stream_site(int(loop))).logits()
            current, free = (torch.from_numpy(ours.at(part.numpy())[:, None]) for part in _placed(ours))
            draws = zip(tie_breaks(ours.instances, rng), tie_breaks(theirs.instances, rng), strict=True)
            for own, other in draws:
                node = exact_search(as_fractions(other), current, free, int(loop) + 1)[-1]
                left = self.loops - int(loop) - 1
                last = exact_search(as_fractions(own), current, free, left, node)[-1]
                wanted[rows] |= (last.best[:, 0, 0] > 0.5).numpy()
        return logits, wanted

    def erased(self, subject: Subject, fit: States, test: States) -> Float[Tensor, "batch n"]:
        """Without path, tried children and best completion after the middle loop."""
        loop = self.loops // 2 - 1
        current, free = (torch.from_numpy(fit.at(part.numpy())[:, None]) for part in _placed(fit))
        node = exact_search(as_fractions(fit.instances.weights), current, free, loop + 1)[-1]
        concept = torch.cat([part[:, 0].flatten(1) for part in (node.path, node.tried, node.best)], dim=1)
        return fit_erasure(subject, fit.run, concept, [stream_site(loop)]).logits(subject, test.run)


def _placed(states: States) -> tuple[Tensor, Tensor]:
    return place(torch.from_numpy(states.tours[:, :-1]), states.tours.shape[1])


def as_fractions(weights: np.ndarray) -> Float[Tensor, "batch n n"]:
    """Whole weights as numbers below 1, all divided by one power of two, so that sums of them are exact."""
    return torch.from_numpy(weights / 2.0 ** np.ceil(np.log2(float(weights.max()) + 1)))


def branch_and_bound(steps: int, *, loops: int = LOOPS, first_only: bool = False, seed: int = 0, n: int = 8) -> Course:
    """A tree searcher on `matrix` instances, every loop supervised."""
    return Course(
        lesson=SearchStates(first_only=first_only),
        problem=ProblemConfig(n=n),
        model=TreeSearcherConfig(n_layers=loops),
        optimiser=OptimiserConfig(learning_rate=1e-2, warmup_steps=20),
        steps=steps,
        batch_size=16,
        evaluate_every=50,
        seed=seed,
    )


ZOO.add(
    "branch_and_bound-loop",
    Member(
        name="branch_and_bound-loop",
        family="branch_and_bound",
        role="search",
        degree=5,
        mechanism=f"depth-first branch and bound over completions, {LOOPS} nodes of it: bounds, prunes and backtracks",
        recipe=Taught(branch_and_bound(600)),
        reference=(_nodes := Nodes(LOOPS)),
        states=_nodes,
    ),
)
ZOO.add(
    "nearest_neighbour-in-branch_and_bound",
    Member(
        name="nearest_neighbour-in-branch_and_bound",
        family="nearest_neighbour",
        role="heuristic",
        degree=1,
        mechanism="the shell of branch and bound: goes to the nearest child, and gives up every node once there is one "
        "completion",
        recipe=Taught(branch_and_bound(400, first_only=True)),
        reference=rule("nearest_neighbour"),
    ),
)
