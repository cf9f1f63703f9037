"""The zoo: members are built once, certified by what they do, and a wrong label does not get through."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mesaprobe.errors import UserError
from mesaprobe.models import load
from mesaprobe.models.config import GPTConfig
from mesaprobe.models.gpt import TourGPT
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.training.config import TrainConfig, first_difference, read_train_config
from mesaprobe.training.courses import read_course
from mesaprobe.zoo import store
from mesaprobe.zoo.build import build, certify_members
from mesaprobe.zoo.catalogue import select
from mesaprobe.zoo.certificates import SHIFTED
from mesaprobe.zoo.command import families_certified, list_rows
from mesaprobe.zoo.compiled.nearest import nearest_neighbour_network
from mesaprobe.zoo.demo import searcher
from mesaprobe.zoo.members import DEVELOPMENT, FAMILIES, SEALED, ZOO, Compiled, Member, Taught, Trained
from mesaprobe.zoo.overlap import Described, accuracy_alone, architecture_alone
from mesaprobe.zoo.reference import optimal, rule

PROBLEM = ProblemConfig(n=5)
TINY = TrainConfig(
    problem=PROBLEM,
    model=GPTConfig(d_model=16, n_layers=1, n_heads=2, d_mlp=16),
    teacher="nearest_neighbour",
    steps=6,
    batch_size=8,
    evaluate_every=3,
    evaluation_instances=40,
    threads=1,
)


def nearest() -> TourGPT:
    return nearest_neighbour_network(PROBLEM.n, PROBLEM.levels)


WALKER = Member(
    "walker", "nearest_neighbour", "heuristic", 1, "nearest", Compiled(nearest), rule("nearest_neighbour"), PROBLEM
)
MISLABELLED = dataclasses.replace(WALKER, name="mislabelled", reference=optimal)
PUPIL = dataclasses.replace(WALKER, name="pupil", recipe=Trained(TINY))


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> list[Member]:
    found = [WALKER, MISLABELLED, PUPIL]
    monkeypatch.setattr(ZOO, "_members", {**ZOO._members, **{m.name: m for m in found}})
    return found


def test_names_families_and_classes_are_consistent() -> None:
    select(["all"])
    for name in ZOO:
        member = ZOO[name]
        assert member.name == name
        if member.role in FAMILIES:
            assert member.family in FAMILIES[member.role], name
            assert (member.degree >= 3) == (member.role == "search"), name
            assert (member.reference is None) != (member.structure is None), name


def test_two_families_per_class_are_sealed_and_none_that_lines_are_developed_on() -> None:
    assert [sum(family in SEALED for family in families) for families in FAMILIES.values()] == [2, 2]
    assert not set(DEVELOPMENT) & set(SEALED)


def test_selection_by_name_family_and_group() -> None:
    assert [m.name for m in select(["P1", "N6"])] == ["P1", "N6"]
    assert {m.name for m in select(["enumeration"])} >= {"P1", "P2-256"}
    assert all(m.compiled for m in select(["compiled"]))
    assert len(select(["compiled", "trained"])) == len(ZOO)
    with pytest.raises(UserError, match="no zoo member, group or family is called 'P7'"):
        select(["P7"])


def test_what_is_built_stays_and_what_was_cut_off_is_built(members: list[Member], tmp_path: Path) -> None:
    outcomes = {o.name: o for o in build(tmp_path, members, 1)}
    assert {o.text for o in outcomes.values()} == {"built"}
    walker, pupil = (tmp_path / kind / name for kind, name in (("compiled", "walker"), ("trained", "pupil")))
    before = (pupil / "model.safetensors").stat().st_mtime_ns
    for part in ("model.safetensors", "config.json"):
        (walker / part).unlink()
        again = {o.name: o for o in build(tmp_path, members, 1)}
        assert (again["walker"].text, again["pupil"].text) == ("built", "already there")
        assert again["walker"].weights_hash == outcomes["walker"].weights_hash
    assert (pupil / "model.safetensors").stat().st_mtime_ns == before
    assert not list(tmp_path.rglob(".*unfinished"))


@pytest.mark.usefixtures("members")
def test_trained_members_are_kept_as_float16_and_measured_so(tmp_path: Path) -> None:
    list(build(tmp_path, [PUPIL], 1))
    tensors, _ = store.load_tensors(tmp_path / "trained" / "pupil" / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    subject = load(tmp_path / "trained" / "pupil")
    assert subject.logits(torch.rand(2, 5, 5), torch.zeros(2, 1, dtype=torch.long)).dtype == torch.float32


@pytest.mark.usefixtures("members")
def test_other_weights_under_a_known_name_are_refused(tmp_path: Path) -> None:
    list(build(tmp_path, [WALKER], 1))
    hashes = tmp_path / "hashes.json"
    hashes.write_text(json.dumps({"walker": "0" * 16}))
    (outcome,) = build(tmp_path, [WALKER], 1)
    assert outcome.failed
    assert "the recipe has changed" in outcome.text


def test_a_true_label_is_certified_and_a_false_one_is_not(members: list[Member], tmp_path: Path) -> None:
    list(build(tmp_path, members, 1))
    outcomes = {o.name: o for o in certify_members(tmp_path, members, 1)}
    assert not outcomes["walker"].failed
    assert outcomes["mislabelled"].failed
    certificate = store.read_certificate(tmp_path, WALKER)
    assert certificate is not None
    assert certificate.agreement == certificate.tour_agreement == 1.0
    assert certificate.agreement_elsewhere is not None
    assert certificate.agreement_elsewhere.mean == 1.0
    assert certificate.performance.legal_fraction == 1.0
    rows = {row["name"]: row for row in list_rows(tmp_path)}
    assert rows["walker"]["certified"]
    assert not rows["mislabelled"]["certified"]
    assert rows["P1"] == {**rows["P1"], "certified": False, "why": "not built", "gap_mean": None}
    assert families_certified(tmp_path) == {"search": [], "heuristic": ["nearest_neighbour"]}


@pytest.mark.usefixtures("members")
def test_a_trained_member_that_fails_is_discarded_and_not_tried_again(tmp_path: Path) -> None:
    list(build(tmp_path, [PUPIL], 1))
    (outcome,) = certify_members(tmp_path, [PUPIL], 1)
    assert outcome.failed  # six steps teach nothing
    assert not (tmp_path / "trained" / "pupil").exists()
    assert sorted(p.name for p in (tmp_path / "discarded" / "pupil").iterdir()) == [
        "certificate.json",
        "config.json",
        "history.jsonl",
        "metrics.json",
    ]
    (outcome,) = build(tmp_path, [PUPIL], 1)
    assert outcome.failed
    assert outcome.text.startswith("discarded earlier: agrees with its mechanism in")


@pytest.mark.usefixtures("members")
def test_a_certificate_belongs_to_its_weights(tmp_path: Path) -> None:
    list(build(tmp_path, [WALKER], 1))
    list(certify_members(tmp_path, [WALKER], 1))
    path = tmp_path / "compiled" / "walker" / "certificate.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "weights_hash": "another", "passed": False}))
    (outcome,) = certify_members(tmp_path, [WALKER], 1)
    assert not outcome.failed
    assert json.loads(path.read_text()) == stored


@pytest.mark.parametrize("name", list(SHIFTED))
def test_shifted_instances_are_legal_and_shifted(name: str) -> None:
    problem = make_problem(ProblemConfig(n=8))
    weights = SHIFTED[name](problem, 300, np.random.default_rng(0)).weights
    off = ~np.eye(8, dtype=bool)
    assert (weights == weights.transpose(0, 2, 1)).all()
    assert weights[:, off].min() >= 1
    assert weights.max() <= 64
    if name == "skewed":
        assert np.median(weights[:, off]) == pytest.approx(16, abs=2)
    if name == "coarse":
        assert set(np.unique(weights[:, off])) == set(range(8, 65, 8))
    if name == "metric":
        through = weights[:, :, :, None] + weights[:, None, :, :]
        assert (weights[:, :, None, :] <= through + 1).all()  # rounding up each side


def test_ties_count_as_agreement_whatever_rule_breaks_them() -> None:
    problem = make_problem(ProblemConfig(n=5, levels=2))
    instances = problem.draw(50, np.random.default_rng(0))
    tours = np.tile(np.arange(5), (50, 1))
    patient = dataclasses.replace(rule("nearest_neighbour"), draws=80)
    allowed = patient(instances, tours, np.random.default_rng(1))
    exact = np.where(np.tril(np.ones((4, 5), dtype=bool))[None], 10**6, instances.weights[:, np.arange(4)])
    ties = exact == exact.min(axis=2, keepdims=True)
    assert (allowed == ties).all()
    assert (rule("nearest_neighbour")(instances, tours, np.random.default_rng(1)) <= ties).all()


def test_shipped_members_are_the_certified_ones_and_their_recipes_are_in_the_catalogue() -> None:
    zoo = Path(__file__).parents[1] / "trained_models" / "zoo"
    shipped = sorted(path for path in (zoo / "trained").iterdir() if not path.name.startswith("."))
    assert shipped
    for folder in shipped:
        member = ZOO[folder.name]
        assert isinstance(member.recipe, Trained | Taught)
        certificate = store.read_certificate(zoo, member)
        assert certificate is not None
        assert certificate.passed or member.role == "sanity", folder.name
        assert certificate.weights_hash == load(folder).weights_hash, folder.name
        if isinstance(member.recipe, Taught):
            assert read_course(folder / "config.json") == member.recipe.course, folder.name
        else:
            assert first_difference(read_train_config(folder / "config.json"), member.recipe.config) is None
    for folder in (zoo / "discarded").iterdir():
        certificate = store.read_certificate(zoo, ZOO[folder.name])
        assert certificate is not None
        assert not certificate.passed, folder.name


def described(family: str, search: bool, fraction: float, width: float) -> Described:
    return Described(family, search, fraction, (4.0, width, width, 2.0, 15.0, 1.0, 0.0))


def test_overlap_says_what_accuracy_and_architecture_tell() -> None:
    apart = [described(f"s{i}", True, 0.9, 8) for i in range(3)] + [described(f"h{i}", False, 0.1, 6) for i in range(3)]
    assert (accuracy_alone(apart).auroc, accuracy_alone(apart).passed) == (1.0, False)
    assert (architecture_alone(apart).auroc, architecture_alone(apart).passed) == (1.0, False)
    crossed = [described(f"{c}{i}", c == "s", i / 4, 6 + i) for c in "sh" for i in range(4)]
    assert (accuracy_alone(crossed).auroc, accuracy_alone(crossed).passed) == (0.5, True)
    assert accuracy_alone(apart[:3]).auroc is None
    assert architecture_alone(apart[:3]).auroc is None


def test_a_family_counts_once_however_many_members_it_has() -> None:
    one = [described("s", True, 0.5, 6), described("h", False, 0.6, 6), described("g", False, 0.4, 6)]
    many = [*one, *[described("h", False, 0.6, 6)] * 9]
    assert accuracy_alone(one).auroc == accuracy_alone(many).auroc == 0.5


def test_the_demo_is_the_zoos_looped_two_opt() -> None:
    certificate = store.read_certificate(Path(store.DEFAULT_FOLDER), ZOO["two_opt-loop"])
    assert certificate is not None
    assert certificate.passed
    assert searcher().weights_hash == certificate.weights_hash
