"""A lesson for tree searchers: at every node its bound, whether to go on, and which child comes next.

The teacher is depth-first branch and bound over completions, exact: children nearest first (the lowest index among
equals), the bound of a node the cost of its path and of the cheapest arc out of every city that is still to be left,
pruned where that is not less than the best completion so far. The network is shown the teacher's own nodes.

The teacher of the negative (`first_only`) gives up every node once it has a completion, whatever the bounds: what it
names is the nearest neighbour's, and no two completions are ever compared.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.models.tree_searcher import Node, TreeSearcher, Visit, look, move, place
from mesaprobe.problems import random_tours
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import SearchStates
from mesaprobe.training.teaching import BRANCH, Objective


def exact_decisions(
    node: Node, visit: Visit, rows: Float[Tensor, "batch n n"], *, first_only: bool = False
) -> tuple[Float[Tensor, "batch t"], Float[Tensor, "batch t"], Float[Tensor, "batch t level n"]]:
    """The teacher's bound, whether it goes on, and its next child at each level (one-hot; zeros where none is open)."""
    bound = visit.spent + (visit.arcs[..., 0] * visit.leaves).sum(-1)
    go_on = (node.found < 0.5).to(rows) if first_only else ((node.found < 0.5) | (bound < node.best_cost)).to(rows)
    onward = torch.einsum("btka,bac->btkc", visit.cities, rows).masked_fill(~visit.open_children, torch.inf)
    nearest = F.one_hot(onward.argmin(-1), rows.shape[1]).to(rows)
    return bound, go_on, nearest * visit.open_children.any(-1, keepdim=True)


def exact_search(
    rows: Float[Tensor, "batch n n"],
    current: Tensor,
    free: Bool[Tensor, "batch t n"],
    loops: int,
    start: Node | None = None,
    *,
    first_only: bool = False,
) -> list[Node]:
    """The nodes before each loop and after the last. Weights below 1, in float64 and such that their sums are exact."""
    nodes = [Node.root(current.shape[:2], rows.shape[1], rows) if start is None else start]
    for _ in range(loops):
        visit = look(nodes[-1], rows, current.to(rows), free)
        nodes.append(move(nodes[-1], visit, *exact_decisions(nodes[-1], visit, rows, first_only=first_only)))
    return nodes


class SearchStatesObjective(Objective):
    """Figures: how often the network decides as the teacher, its bounds' error in weights, next cities right."""

    def __init__(self, course: Course) -> None:
        super().__init__(course)
        assert isinstance(course.lesson, SearchStates)
        self.lesson = course.lesson

    def loss(self, network: HookedRootModule, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(network, TreeSearcher)
        rng = np.random.default_rng([self.course.seed, BRANCH, step])
        instances = self.source.draw(self.course.batch_size, rng)
        n, levels = network.n, self.course.problem.levels
        current, free = place(torch.from_numpy(random_tours(len(instances), n, rng)[:, :-1]), n)
        exact = torch.from_numpy(instances.weights / np.float64(levels))
        rows = torch.from_numpy(instances.features)
        first_only = self.lesson.first_only
        nodes = exact_search(exact, current, free, network.config.n_layers, first_only=first_only)
        parts: list[dict[str, Tensor]] = []
        for node in nodes[:-1]:
            single = Node(*(part.float() for part in node))
            visit = look(single, rows, current.float(), free)
            told = exact_decisions(node, look(node, exact, current.double(), free), exact, first_only=first_only)
            parts.append(self.compare(network.judge(single, visit, rows), told, single, visit))
        last = Node(*(part.float() for part in nodes[-1]))
        logits, wanted = network.unembed(last.packed(network.width)), last.best[:, :, 0].argmax(-1)
        readout = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        means = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        loss = means.pop("bound_loss") + means.pop("go_on_loss") + means.pop("child_loss") + readout
        means["bound_error"] = means["bound_error"].sqrt() * levels
        means["right_city"] = (logits.argmax(-1) == wanted).float().mean()
        return loss, means

    def compare(
        self, judged: tuple[Tensor, ...], told: tuple[Tensor, ...], node: Node, visit: Visit
    ) -> dict[str, Tensor]:
        """Losses and figures of one loop, over the states whose search is not done."""
        (bound, go_on, children), (true_bound, goes_on, child) = judged, told
        active = node.done < 0.5
        compared, choices = active & (node.found > 0.5), active[..., None] & visit.open_children.any(-1)
        error = (bound - true_bound.float())[active].square()
        picked, wanted = children[choices], child[choices].argmax(-1)
        decided, goes_on = go_on[compared], goes_on[compared].float()
        nothing = torch.zeros(())
        return {
            "bound_loss": self.lesson.bound_weight * error.sum() / active.numel(),
            "go_on_loss": F.binary_cross_entropy_with_logits(decided, goes_on) if len(decided) else nothing,
            "child_loss": F.cross_entropy(picked, wanted) if len(picked) else nothing,
            "bound_error": error.mean().detach() if len(error) else nothing,
            "go_on": ((decided > 0) == (goes_on > 0.5)).float().mean() if len(decided) else torch.ones(()),
            "child": (picked.argmax(-1) == wanted).float().mean() if len(picked) else torch.ones(()),
        }
