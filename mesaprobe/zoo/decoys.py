"""Networks built to fool a detector of search (method.md section 6.3): K1, K2 and K3. No fit ever sees them.

K1  nearest neighbour that holds optimal values and completions in plain sight and uses neither
K2  the same, with a dormant pathway to its choice that a learnt subspace may wake up
K3  the local scorer where it is near-optimal: on points in the plane

K4 and K6 are disguises of compiled members (`compiled_members`).
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mesaprobe.instruments.patching.runs import EditableRun, read_site, site_positions, site_vectors, write_site
from mesaprobe.models.local_scorer import LocalScorer
from mesaprobe.models.networks import network_subject
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.solvers.constructive import unvisited
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course
from mesaprobe.training.inert_values import next_but_one
from mesaprobe.training.lessons import InertValues
from mesaprobe.training.valuations import least
from mesaprobe.training.value_states import value_subspace
from mesaprobe.zoo.certificates import BRANCH, Certificate, certify
from mesaprobe.zoo.intended_states import stream_site
from mesaprobe.zoo.local_scorer import ignores_far_weights, local_scorer
from mesaprobe.zoo.members import ZOO, Member, Taught, Trained
from mesaprobe.zoo.reference import Reference, rule
from mesaprobe.zoo.searcher_certificates import COUNT, States, own_states
from mesaprobe.zoo.state_tests import DecoyTest
from mesaprobe.zoo.value_gpts import SHAPE

NEAREST = "trained_models/matrix8-nearest"
_STATES = 12


@dataclass(frozen=True)
class Held:
    """What a decoy was taught to hold (see `training.inert_values`)."""

    layer: int
    gain: float
    subspace_seed: int
    dormant: bool

    def certify(self, subject: Subject, reference: Reference, *, seed: int = 0) -> Certificate:
        """The certificate of a decoy: its behaviour is the rule's, and what it holds is decodable and inert."""
        behaviour = certify(subject, reference, "imitation", seed=seed)
        test = self.measure(subject, seed=seed)
        return dataclasses.replace(
            behaviour,
            kind="decoy",
            passed=behaviour.passed and test.passed,
            why=f"{behaviour.why}; {test.why}",
            decoy=test,
        )

    def measure(self, subject: Subject, *, seed: int = 0) -> DecoyTest:
        """The figures, at one state along the decoy's own tour of each of fresh instances."""
        n, rng = subject.problem.n, np.random.default_rng([BRANCH, seed, _STATES])
        base = own_states(subject, COUNT, rng)
        source = States(subject.problem.draw(COUNT, rng), base.tours, base.lengths)
        values, completion, dormant = value_subspace(
            int(subject.description["d_model"]), 3 * n, self.subspace_seed
        ).split(n, dim=1)
        site = stream_site(self.layer)
        positions = site_positions(subject, site, base.run)
        own, other = (site_vectors(subject, s.run, site, positions)[:, 0] for s in (base, source))
        held = torch.cat([values, completion], dim=1)
        plain = self._logits(subject, base, own)
        exchanged = self._logits(subject, base, own + (other - own) @ held @ held.mT)
        chosen = plain.argmax(-1, keepdim=True)
        moved = (exchanged.log_softmax(-1) - plain.log_softmax(-1)).gather(-1, chosen).abs().mean()
        optimal = base.at(action_values(base.instances.weights, base.tours))
        second = base.at(next_but_one(base.instances, base.tours))
        left = n - base.lengths
        result = DecoyTest(
            decodable=_explained((own @ values).numpy(), optimal, base.lengths),
            completion_decodable=float((_second(own @ completion, base) == second).mean()),
            completion_chance=float((1 / (left - 1)).mean()),
            changed=float((exchanged.argmax(-1, keepdim=True) != chosen).float().mean()),
            moved=float(moved),
            states=COUNT,
        )
        if not self.dormant:
            return result
        written = self._written(base.at(action_values(source.instances.weights, base.tours)))
        resting = own - own @ dormant @ dormant.mT
        woken = self._logits(subject, base, resting + self.gain / subject.problem.config.levels * written @ dormant.mT)
        wanted = least(base.at(action_values(source.instances.weights, base.tours)))
        follows = np.take_along_axis(wanted, woken.argmax(-1, keepdim=True).numpy(), axis=1)
        size = float((own @ dormant).square().mean().sqrt() / (own @ values).square().mean().sqrt())
        return dataclasses.replace(result, dormant=float(follows.mean()), at_rest=size)

    def _logits(self, subject: Subject, states: States, vectors: Tensor) -> Tensor:
        """With these vectors in the place of the decode token's."""
        site, run = stream_site(self.layer), states.run
        positions = site_positions(subject, site, run)

        def edit(activation: Tensor, rows: Tensor) -> Tensor:
            assert read_site(activation, site, positions[rows]).shape[2] == vectors.shape[1]
            return write_site(activation, site, positions[rows], vectors[rows][:, None])

        return EditableRun(subject, run, [site.hook]).logits({site.hook: edit})

    def _written(self, values: np.ndarray) -> Tensor:
        """Values less the mean of the free cities', 0 for visited ones: what the dormant pathway was trained on."""
        free = np.isfinite(values)
        mean = np.where(free, values, 0).sum(1, keepdims=True) / free.sum(1, keepdims=True)
        return torch.from_numpy(np.where(free, values - mean, 0.0)).float()


def _explained(coordinates: np.ndarray, values: np.ndarray, lengths: np.ndarray) -> float:
    """R^2 of the values of free cities by their own coordinates, one line for each step: 1 - residual / variance."""
    residual = total = 0.0
    for length in np.unique(lengths):
        rows = lengths == length
        free = np.isfinite(values[rows])
        x, y = coordinates[rows][free], values[rows][free]
        slope, offset = np.polyfit(x, y, 1)
        residual += float(np.square(y - slope * x - offset).sum())
        total += float(np.square(y - y.mean()).sum())
    return 1 - residual / total


def _second(logits: Tensor, states: States) -> np.ndarray:
    free = torch.from_numpy(states.at(unvisited(states.tours)))
    return logits.masked_fill(~free, -torch.inf).argmax(-1).numpy()


def planar_scorer_ignores_far_weights(
    subject: Subject, instances: Instances, rng: np.random.Generator
) -> Bool[np.ndarray, "batch step n"]:
    """`ignores_far_weights` of a local scorer on points: the same weights, shown distances instead of coordinates.

    In the plane no distance can be drawn anew by itself. The scorer reads points as their distances and nothing else
    (tested), and its weights do not depend on which it is given; so the property is checked on matrices.
    """
    assert isinstance(subject, ModuleSubject)
    scorer = subject.module
    assert isinstance(scorer, LocalScorer)
    matrix = make_problem(ProblemConfig("matrix", instances.problem.n))
    twin = LocalScorer(scorer.config, matrix.n, matrix.feature_width)
    twin.load_state_dict(scorer.state_dict())
    drawn = matrix.draw(len(instances), rng)
    return ignores_far_weights(network_subject(twin, matrix, "the scorer on matrices"), drawn, rng)


def decoy(*, dormant: bool, steps: int, start: str, seed: int = 0) -> Course:
    """A GPT of the shipped shape that holds what it does not use."""
    return Course(
        lesson=InertValues(dormant=dormant),
        problem=ProblemConfig(n=8),
        model=SHAPE,
        start=start,
        optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=100),
        steps=steps,
        batch_size=24,
        decay_share=0.4,
        evaluate_every=50,
        seed=seed,
    )


def _add(name: str, mechanism: str, course: Course) -> None:
    lesson = course.lesson
    assert isinstance(lesson, InertValues)
    ZOO.add(
        name,
        Member(
            name=name,
            family="nearest_neighbour",
            role="decoy",
            degree=1,
            mechanism=mechanism,
            recipe=Taught(course),
            reference=rule("nearest_neighbour"),
            held=Held(lesson.layer, lesson.gain, lesson.subspace_seed, lesson.dormant),
        ),
    )


_add(
    "K1",
    "the nearest city; optimal values and completions stand in a subspace that nothing reads",
    decoy(dormant=False, steps=450, start=NEAREST),
)
_add(
    "K1-long",
    "as K1, trained for longer: the first attempt failed its certificate and is discarded",
    decoy(dormant=False, steps=2000, start=NEAREST),
)
_add(
    "K2",
    "as K1, with a pathway from a subspace that nothing writes to the choice",
    decoy(dormant=True, steps=500, start="trained_models/zoo/trained/K1-long"),
)
_add(
    "K2-long",
    "as K2, trained for longer: the first attempt failed its certificate and is discarded",
    decoy(dormant=True, steps=2500, start="trained_models/zoo/trained/K1-long"),
)
ZOO.add(
    "K3",
    Member(
        name="K3",
        family="local_scorer",
        role="decoy",
        degree=1,
        mechanism="scores each city by local features alone, on points in the plane, where that is near-optimal",
        recipe=Trained(dataclasses.replace(local_scorer(), problem=ProblemConfig("euclidean", 8), steps=8000)),
        reference=None,
        problem=ProblemConfig("euclidean", 8),
        structure=planar_scorer_ignores_far_weights,
    ),
)
