"""The inner states that trained searchers were taught: how certificates exchange and erase them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.erasure import fit_erasure
from mesaprobe.instruments.interchange import Interchange
from mesaprobe.instruments.patching.runs import EditableRun, read_site, site_positions, site_vectors, write_site
from mesaprobe.models.subject import Subject
from mesaprobe.models.tour_refiner import MOVES, allowed_moves, first_tours
from mesaprobe.problems import Instances
from mesaprobe.training.tie_breaks import with_ties_broken
from mesaprobe.training.tour_states import taught_tours
from mesaprobe.training.valuations import VALUATIONS, cities_of, least
from mesaprobe.training.value_states import mixed, value_subspace
from mesaprobe.zoo.searcher_certificates import States

TIES = 6
"""Random ways of breaking ties under which the algorithm is run, besides its own."""


def stream_site(layer: int) -> Site:
    """What a block leaves, at the decode token."""
    return Site(f"blocks.{layer}.hook_resid_post", "decode", layer, "resid_post")


@dataclass(frozen=True)
class Values:
    """Values of options in a known subspace of the stream (see `training.value_states`)."""

    valuation: str
    layer: int
    subspace_seed: int

    @property
    def words(self) -> str:
        """What they are, and where."""
        return f"values of half of the options after block {self.layer}"

    def __call__(
        self,
        instances: Instances,
        tours: Int64[np.ndarray, "batch n"],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Bool[np.ndarray, "batch decision n"]:
        """The cities that the algorithm allows: the certificate's reference."""
        valuation = VALUATIONS[self.valuation]
        return valuation.allowed(valuation(instances.weights, tours), tours)

    def exchanged(
        self, subject: Subject, base: States, source: States, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "batch n"], Bool[np.ndarray, "batch n"]]:
        """A random half of the options takes its coordinate from the source."""
        valuation, site, run = VALUATIONS[self.valuation], stream_site(self.layer), base.run
        options = base.at(valuation.options(base.tours))
        count = options.shape[1]
        basis = value_subspace(int(subject.description["d_model"]), count, self.subspace_seed)
        taken = rng.permuted(np.tile(np.arange(count) < count // 2, (len(run), 1)), axis=1)
        positions = site_positions(subject, site, run)
        other, exchanged = site_vectors(subject, source.run, site, positions), torch.from_numpy(taken)[:, None]

        def edit(activation: Tensor, rows: Tensor) -> Tensor:
            own = read_site(activation, site, positions[rows])
            return write_site(activation, site, positions[rows], mixed(own, other[rows], basis, exchanged[rows]))

        logits = EditableRun(subject, run, [site.hook]).logits({site.hook: edit})
        ours, theirs = (s.at(valuation(s.instances.weights, s.tours)) for s in (base, source))
        return logits, cities_of(least(np.where(taken, theirs, ours)), options, subject.problem.n)

    def erased(self, subject: Subject, fit: States, test: States) -> Float[Tensor, "batch n"]:
        """Without the values of all options (those of visited cities: the mean of the others)."""
        values = fit.at(VALUATIONS[self.valuation](fit.instances.weights, fit.tours))
        free = np.isfinite(values)
        mean = np.where(free, values, 0).sum(1, keepdims=True) / free.sum(1, keepdims=True)
        concept = torch.from_numpy(np.where(free, values, mean))
        return fit_erasure(subject, fit.run, concept, [stream_site(self.layer)]).logits(subject, test.run)


@dataclass(frozen=True)
class Tours:
    """The tour after every loop of a `TourRefiner` (see `training.tour_states`)."""

    moves: str
    choice: str
    loops: int

    @property
    def words(self) -> str:
        """What they are, and where."""
        return "the tour after a loop, any but the last"

    def __call__(
        self, instances: Instances, tours: Int64[np.ndarray, "batch n"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "batch decision n"]:
        """The cities that the algorithm allows, however it breaks ties: the certificate's reference."""
        batch, n = tours.shape
        starts = first_tours(torch.from_numpy(tours[:, :-1]), n).flatten(0, 1).numpy()
        lengths = np.tile(np.arange(1, n), batch)
        allowed = np.zeros((batch * (n - 1), n), dtype=bool)
        for weights in tie_breaks(instances, rng):
            found = self.taught(np.repeat(weights, n - 1, axis=0), starts, lengths, self.loops)[-1]
            allowed[np.arange(len(found)), found[:, 1]] = True
        return allowed.reshape(batch, n - 1, n)

    def taught(self, weights: np.ndarray, starts: np.ndarray, lengths: np.ndarray, loops: int) -> np.ndarray:
        """The tours before each loop and after the last, [loops + 1, state, n]."""
        movable = allowed_moves(np.array(MOVES[self.moves](starts.shape[1])), lengths)
        return taught_tours(weights, starts, movable, self.moves, self.choice, loops)[0]

    def exchanged(
        self, subject: Subject, base: States, source: States, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "batch n"], Bool[np.ndarray, "batch n"]]:
        """The tour after a random loop is the source's."""
        n, after = subject.problem.n, rng.integers(0, self.loops - 1, size=len(base.tours))
        logits = torch.empty(len(base.tours), n)
        wanted = np.zeros(logits.shape, dtype=bool)
        for loop in np.unique(after):
            rows = np.flatnonzero(after == loop)
            ours, theirs = base[rows], source[rows]
            logits[rows] = Interchange.at(subject, ours.run, theirs.run, stream_site(int(loop))).logits()
            starts = first_tours(torch.from_numpy(ours.tours[:, :-1]), n).numpy()
            starts = ours.at(starts)
            draws = zip(tie_breaks(ours.instances, rng), tie_breaks(theirs.instances, rng), strict=True)
            for own, other in draws:
                reached = self.taught(other, starts, ours.lengths, int(loop) + 1)[-1]
                found = self.taught(own, reached, ours.lengths, self.loops - int(loop) - 1)[-1]
                wanted[rows, found[:, 1]] = True
        return logits, wanted

    def erased(self, subject: Subject, fit: States, test: States) -> Float[Tensor, "batch n"]:
        """Without the tour after the middle loop."""
        n, loop = subject.problem.n, self.loops // 2 - 1
        starts = fit.at(first_tours(torch.from_numpy(fit.tours[:, :-1]), n).numpy())
        tours = self.taught(fit.instances.weights.astype(np.int64), starts, fit.lengths, loop + 1)[-1]
        concept = F.one_hot(torch.from_numpy(tours), n).flatten(1).double()
        return fit_erasure(subject, fit.run, concept, [stream_site(loop)]).logits(subject, test.run)


def tie_breaks(instances: Instances, rng: np.random.Generator) -> Sequence[Int64[np.ndarray, "batch n n"]]:
    """The weights as they are, and with ties broken at random in several ways."""
    broken = [with_ties_broken(instances.weights, instances.problem, rng) for _ in range(TIES)]
    return [instances.weights.astype(np.int64), *broken]
