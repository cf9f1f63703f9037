"""What is asked of a token, with what Z knows of the answer, and the same question's controls (method.md section 4)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mesaprobe.statistics import fit_mean_trees, make_control_task

SET_NAMES = ("calibration", "probe", "test")
"""g(Z) is fitted on the first, probes and their sites on the second, and the third estimates."""


@dataclass(frozen=True, eq=False)
class Question:
    """One target on one set of instances. A sample is a token that is read; it is asked about each of its slots
    (cities, or pairs of cities) that `asked` marks. A row is one such (sample, slot), in their order."""

    values: Float64[np.ndarray, "sample slot"]
    asked: Bool[np.ndarray, "sample slot"]
    z: Float64[np.ndarray, "row k"]
    local: Float64[np.ndarray, "row j"]
    """A few local features, of which a control task makes labels."""
    groups: Int64[np.ndarray, " sample"]
    """The instance of a sample."""
    strata: Int64[np.ndarray, " sample"]
    """Samples of equal stratum (step) may swap in a permutation test."""
    only: Bool[np.ndarray, " row"] | None = None
    """Rows that judge a probe, where others only help to fit it."""

    @property
    def judged(self) -> Bool[np.ndarray, " row"]:
        return np.ones(len(self.z), dtype=np.bool_) if self.only is None else self.only

    @property
    def answers(self) -> Float64[np.ndarray, " row"]:
        return self.values[self.asked]

    @property
    def row_groups(self) -> Int64[np.ndarray, " row"]:
        return np.repeat(self.groups, self.asked.sum(axis=1))

    @property
    def row_strata(self) -> Int64[np.ndarray, " row"]:
        return np.repeat(self.strata, self.asked.sum(axis=1))

    def by_slot(self) -> "Question":
        """The same rows, each slot a sample of its own."""
        slots = self.asked.shape[1]
        return replace(
            self,
            values=self.values.reshape(-1, 1),
            asked=self.asked.reshape(-1, 1),
            groups=np.repeat(self.groups, slots),
            strata=np.repeat(self.strata, slots),
        )

    def table(self, rows: Float64[np.ndarray, " row"]) -> Float64[np.ndarray, "sample slot"]:
        """Rows laid out by sample and slot, 0 where nothing is asked."""
        laid = np.zeros(self.asked.shape)
        laid[self.asked] = rows
        return laid


@dataclass(frozen=True, eq=False)
class Task:
    """A question on the sets that fit and estimate, and what Z leaves open of its answers: r = y - g(Z)."""

    name: str
    probe: Question
    test: Question
    probe_residuals: Float64[np.ndarray, " row"]
    test_residuals: Float64[np.ndarray, " row"]

    def known(self, part: Literal["probe", "test"]) -> Float64[np.ndarray, "sample slot"]:
        """g(Z) of every slot."""
        question, left = (self.probe, self.probe_residuals) if part == "probe" else (self.test, self.test_residuals)
        return question.table(question.answers - left)

    def by_slot(self) -> "Task":
        """The same rows for a view whose samples are the slots."""
        return replace(self, probe=self.probe.by_slot(), test=self.test.by_slot())


def residual_task(name: str, questions: Mapping[str, Question], seed: int) -> Task | None:
    """g(Z) fitted on "calibration", taken off the answers of "probe" and "test"; None where an answer is constant."""
    known, probe, test = (questions[part] for part in SET_NAMES)
    if any(np.ptp(question.answers) == 0 for question in (known, probe, test)):
        return None
    trees = fit_mean_trees(known.z, known.answers[:, None], known.row_groups, seed)
    left = [question.answers - trees.predict(question.z)[:, 0] for question in (probe, test)]
    return Task(name, probe, test, *left)


def control_questions(questions: Mapping[str, Question], seed: int) -> dict[str, Question]:
    """Hewitt and Liang's control task: an arbitrary function of local features, distributed as the answers are."""
    known = questions["calibration"]
    task = make_control_task(known.local, known.answers, seed)
    return {part: _answering(question, task.labels(question.local)) for part, question in questions.items()}


def swapped_question(
    question: Question, values: Float64[np.ndarray, "sample slot"], rules: Float64[np.ndarray, "row j"]
) -> Question:
    """The same target under another objective; its Z also holds the true answers, and `rules`: what the same rules
    tell under that objective, so that both targets are equally well known."""
    return replace(question, values=values, z=np.concatenate([question.z, question.answers[:, None], rules], axis=1))


def _answering(question: Question, answers: Float64[np.ndarray, " row"]) -> Question:
    return replace(question, values=question.table(answers))
