"""Build and certify members, several at a time; what is done is not done again, what was cut off goes on."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesaprobe.errors import UserError
from mesaprobe.files import make_folder, read_json, read_json_lines, remove_partial_files, write_json
from mesaprobe.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load, save_tensors
from mesaprobe.problems import Instances
from mesaprobe.training.courses import Course
from mesaprobe.training.evaluation import evaluate, evaluation_kinds
from mesaprobe.training.loop import HISTORY_FILE, METRICS_FILE, train
from mesaprobe.training.stream import evaluation_instances
from mesaprobe.training.teaching import teach
from mesaprobe.zoo import store
from mesaprobe.zoo.certificates import INSTANCES, Certificate, certify, certify_structure, describe
from mesaprobe.zoo.members import ZOO, Compiled, Member, Taught, Trained
from mesaprobe.zoo.searcher_certificates import certify_searcher
from mesaprobe.zoo.store import HASHES_FILE
from mesaprobe.zoo.taught import write_taught


@dataclass(frozen=True)
class Outcome:
    """What became of one member."""

    name: str
    text: str
    failed: bool = False
    weights_hash: str | None = None


def build(zoo: Path, members: Sequence[Member], processes: int) -> Iterator[Outcome]:
    """Build the members that are not there; yields one outcome per member as each is done.

    Every process uses one thread. A member that fails does not stop the others. Weights of compiled members are
    compared with `hashes.json`, to which new members are added.
    """
    make_folder(zoo)
    for outcome in each_member(_build_one, zoo, members, processes):
        yield _checked(zoo, outcome)


def certify_members(zoo: Path, members: Sequence[Member], processes: int, *, again: bool = False) -> Iterator[Outcome]:
    """Certify the members that are built, unless a certificate of these weights is stored (or `again`); yields one
    outcome per member as each is done. A trained member that fails is moved to `discarded`."""
    yield from each_member(_certify_again if again else _certify_one, zoo, members, processes)


Job = Callable[[Path, Member], Outcome]


def each_member(job: Job, zoo: Path, members: Sequence[Member], processes: int) -> Iterator[Outcome]:
    """Do a job for every member, several at a time in processes of their own; yields outcomes as they come."""
    jobs = [(job, zoo, member.name) for member in members]
    if processes == 1 or len(jobs) < 2:
        yield from map(_run, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        yield from pool.imap_unordered(_run, jobs, chunksize=1)


def _run(job: tuple[Job, Path, str]) -> Outcome:
    import torch

    import mesaprobe.zoo.catalogue  # noqa: F401  (a fresh process registers the members)

    torch.set_num_threads(1)
    act, zoo, name = job
    try:
        return act(zoo, ZOO[name])
    except UserError as error:
        return Outcome(name, str(error), failed=True)


def _build_one(zoo: Path, member: Member) -> Outcome:
    if (zoo / store.DISCARDED / member.name).is_dir():
        known = store.read_certificate(zoo, member)
        return Outcome(member.name, f"discarded earlier: {known.why if known else 'no certificate'}", failed=True)
    text = "already there"
    if not store.is_built(zoo, member):
        if isinstance(member.recipe, Compiled):
            _write_compiled(zoo, member, member.recipe)
        elif isinstance(member.recipe, Taught):
            _teach(zoo, member, member.recipe.course)
        else:
            _train(zoo, member, member.recipe)
        text = "built"
    return Outcome(member.name, text, weights_hash=store.load_member(zoo, member).weights_hash)


def _checked(zoo: Path, outcome: Outcome) -> Outcome:
    """Compare the hash of a compiled member's weights with the one on record, or put it on record."""
    recipe = ZOO[outcome.name].recipe
    if outcome.failed or not isinstance(recipe, Compiled) or not recipe.repeatable:
        return outcome
    path = zoo / HASHES_FILE
    hashes: dict[str, str] = read_json(path) if path.is_file() else {}
    known = hashes.get(outcome.name)
    if known is None:
        write_json(path, dict(sorted({**hashes, outcome.name: str(outcome.weights_hash)}.items())))
    elif known != outcome.weights_hash:
        text = f"the weights have the hash {outcome.weights_hash}, {path} says {known}: the recipe has changed"
        return Outcome(outcome.name, text, failed=True, weights_hash=outcome.weights_hash)
    return outcome


def _write_compiled(zoo: Path, member: Member, recipe: Compiled) -> None:
    folder = make_folder(store.member_folder(zoo, member))
    remove_partial_files(folder)
    model = recipe.build()
    config = {"problem": member.problem, "model": model.config, "teacher": None, "arm": None}
    write_json(folder / CONFIG_FILE, config)
    save_tensors(folder / WEIGHTS_FILE, model.state_dict())  # last: its presence means complete


def _train(zoo: Path, member: Member, recipe: Trained) -> None:
    """Train next door, so that a folder of the zoo is whole or absent, then round and measure what is kept."""
    folder = make_folder(store.member_folder(zoo, member).parent) / f".{member.name}.unfinished"
    train(recipe.config, folder, resume=True)
    store.round_to_float16(folder)
    subject = load(folder)
    config = recipe.config
    kinds = evaluation_kinds(config)
    sets = {kind: evaluate(subject, config, kind, config.evaluation_instances) for kind in kinds}
    write_json(folder / METRICS_FILE, sets)
    folder.rename(store.member_folder(zoo, member))


def _teach(zoo: Path, member: Member, course: Course) -> None:
    """As `_train`, for a course: where the weights start is named relative to the working folder."""
    folder = make_folder(store.member_folder(zoo, member).parent) / f".{member.name}.unfinished"
    teach(course, folder)
    store.round_to_float16(folder)
    seconds = read_json_lines(folder / HISTORY_FILE)[-1]["seconds"]
    write_taught(folder, member, course, load(folder), seconds)
    folder.rename(store.member_folder(zoo, member))


def _certify_one(zoo: Path, member: Member) -> Outcome:
    subject, known = store.load_member(zoo, member), store.read_certificate(zoo, member)
    if known is not None and known.weights_hash == subject.weights_hash:
        return _told(member, known)
    return _certify_again(zoo, member)


def _certify_again(zoo: Path, member: Member) -> Outcome:
    subject = store.load_member(zoo, member)
    if member.states is not None and member.reference is not None:
        certificate = certify_searcher(subject, member.reference, member.states)
    elif member.held is not None and member.reference is not None:
        certificate = member.held.certify(subject, member.reference)
    elif member.structure is not None:
        certificate = certify_structure(subject, member.structure)
    elif member.reference is not None:
        certificate = certify(subject, member.reference, "construction" if member.compiled else "imitation")
    else:
        certificate = describe(subject, _own_instances(member))
    store.write_certificate(zoo, member, certificate)
    return _told(member, certificate)


def _own_instances(member: Member) -> Instances | None:
    """What a memoriser was shown."""
    if not isinstance(member.recipe, Trained) or not member.recipe.config.data.fixed_instances:
        return None
    return evaluation_instances(member.recipe.config, "fixed", INSTANCES).instances


def _told(member: Member, certificate: Certificate) -> Outcome:
    failed = not certificate.passed and certificate.kind != "none"
    return Outcome(member.name, ("FAILED: " if failed else "") + certificate.why, failed, certificate.weights_hash)
