"""The command line: parse, call, show progress, exit code. Heavy imports wait inside the verbs."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mesaprobe.errors import UserError
from mesaprobe.problems import ProblemConfig
from mesaprobe.training.config import PRESETS, TrainConfig, read_train_config

VERBS = {
    "train": "train a GPT on tours",
    "analyze": "look inside a trained network and write a report",
    "solve": "tours, bounds, labels and searches of instances from a file or drawn",
    "zoo": "networks of known mechanism: list, build, certify, calibrate; the error table",
    "compare": "one page with several analyses side by side",
    "report": "render report.html again from stored results",
    "bench": "the performance table, each row against a peer in the same run",
}

Many = Annotated[tuple[str, ...], tyro.conf.Positional]
One = Annotated[str, tyro.conf.Positional]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `mesaprobe`: exit code 0, or 2 with one sentence for what a person can mend."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] == "--version":
        from mesaprobe import __version__

        print(__version__)
        return
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return
    try:
        if words[0] not in VERBS:
            raise UserError(f"unknown command {words[0]!r}; known: {', '.join(VERBS)}")
        _COMMANDS[words[0]](words[1:])
    except UserError as error:
        print(f"mesaprobe: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("mesaprobe: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None


def _overview() -> str:
    rows = "\n".join(f"  {verb:<9} {text}" for verb, text in VERBS.items())
    return (
        "usage: mesaprobe COMMAND [OPTIONS]\n\nDoes a neural network search, or does it run heuristics?\n\n"
        f"commands:\n{rows}\n\n`mesaprobe COMMAND --help` shows the options of a command."
    )


def _parse(kind: Any, verb: str, words: list[str], default: Any = None) -> Any:
    return tyro.cli(
        kind,
        prog=f"mesaprobe {verb}",
        description=VERBS[verb][0].upper() + VERBS[verb][1:] + ".",
        args=words,
        config=(tyro.conf.FlagCreatePairsOff,),
        **({} if default is None else {"default": default}),
    )


# --- train -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainArguments:
    """Options of `mesaprobe train`."""

    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    preset: str | None = None
    """Start from a named config (quick, matrix8-optimal, euclidean8-optimal, matrix8-nearest); options below
    override it."""
    config: Path | None = None
    """Start from a config.json that an earlier run wrote."""
    out: Path | None = None
    """Folder of the run; default trained_models/PRESET."""
    resume: bool = False
    """Go on from the last checkpoint in the folder; a finished run is left as it is."""


def _train(words: list[str]) -> None:
    base = _base_config(words)
    given: TrainArguments = _parse(TrainArguments, "train", words, TrainArguments(run=base))
    if given.out is None and given.preset is None:
        raise UserError("name a folder for the run with --out, or a --preset")
    out = given.out or Path("trained_models") / str(given.preset)
    from mesaprobe.training.loop import train

    with _progress() as show:
        sets = train(given.run, out, resume=given.resume, show=show)
    natural = sets["natural"]
    print(
        f"{out}: mean gap {natural.gap_mean:.2%}, {natural.optimal_fraction:.1%} of the tours optimal, "
        f"{natural.legal_fraction:.2%} legal without the mask ({natural.instances} held-out instances)"
    )


def _base_config(words: list[str]) -> TrainConfig:
    """What --preset or --config names, read before the rest, because the other options override it."""
    found = {name: _option(words, name) for name in ("--preset", "--config")}
    if found["--preset"] and found["--config"]:
        raise UserError("give --preset or --config, not both")
    if found["--config"]:
        return read_train_config(Path(found["--config"]))
    return PRESETS[found["--preset"]] if found["--preset"] else TrainConfig()


def _option(words: list[str], name: str) -> str | None:
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


class _progress:
    """A bar with rate and remaining time on a terminal; a line per evaluation otherwise."""

    def __enter__(self) -> Callable[[Any], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console)
            self.task = self.bar.add_task("training", total=None, note="")
            self.bar.start()
        return self.show

    def show(self, progress: Any) -> None:
        """Called by the training loop (mesaprobe.training.loop.Progress)."""
        speed = f"{progress.instances_per_second:,.0f} instances/s"
        note = f"loss {progress.loss:.3f}, {speed}"
        if progress.evaluation is not None:
            note += f", gap {progress.evaluation.gap_mean:.2%}, optimal {progress.evaluation.optimal_fraction:.1%}"
        if self.bar is not None:
            self.bar.update(self.task, total=progress.steps, completed=progress.step, note=note)
        elif progress.evaluation is not None:
            left = progress.seconds_left
            self.console.print(f"step {progress.step}/{progress.steps}: {note}, {left:.0f} s left", soft_wrap=True)

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()


# --- analyze and report ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnalyzeArguments:
    """Options of `mesaprobe analyze`."""

    subjects: Many
    """Folders of saved models, or package.module:factory where factory() returns a Subject."""
    budget: Literal["quick", "standard", "full"] = "quick"
    """How many instances and repetitions are spent."""
    lines: str | None = None
    """Lines of evidence to run, e.g. E6 or E3,E6; default all."""
    out: Path | None = None
    """Folder of the analysis; default analyses/NAME. With several subjects, the folder that holds theirs."""
    seed: int = 0
    """Seed of all instances and resampling."""
    reuse: bool = False
    """Leave a finished analysis of the same weights, budget, lines and seed as it is."""
    demo: bool = False
    """Analyse a network that the package makes itself, a compiled searcher; needs no clone and no training."""


def _analyze(words: list[str]) -> None:
    given: AnalyzeArguments = _parse(AnalyzeArguments, "analyze", words)
    if given.demo == bool(given.subjects):
        raise UserError(
            "name at least one subject: a folder such as trained_models/demo, or package.module:factory; or take --demo"
        )
    from mesaprobe.analysis.command import analyze_to_folder
    from mesaprobe.report import render

    lines = None if given.lines is None else [line.strip() for line in given.lines.split(",") if line.strip()]
    for spec in given.subjects or ("mesaprobe.zoo.demo:searcher",):
        folder = analyze_to_folder(
            spec,
            given.out,
            several=len(given.subjects) > 1,
            budget=given.budget,
            lines=lines,
            seed=given.seed,
            reuse=given.reuse,
            show=lambda stage: print(f"  {stage}", file=sys.stderr, flush=True),
        )
        page = folder / "report.html"
        if not (given.reuse and page.is_file()):
            page = render(folder)
        print(page)


@dataclass(frozen=True)
class ReportArguments:
    """Options of `mesaprobe report`."""

    analysis: Annotated[Path, tyro.conf.Positional]
    """Folder of a stored analysis, e.g. analyses/demo."""


def _report(words: list[str]) -> None:
    given: ReportArguments = _parse(ReportArguments, "report", words)
    from mesaprobe.report import render

    print(render(given.analysis))


@dataclass(frozen=True)
class CompareArguments:
    """Options of `mesaprobe compare`."""

    analyses: Many
    """Folders of stored analyses, e.g. analyses/one analyses/other."""
    out: Path | None = None
    """The page to write; default compare.html, and none with --json."""
    json: bool = False
    """One JSON object per analysis and line instead of the page."""


def _compare(words: list[str]) -> None:
    given: CompareArguments = _parse(CompareArguments, "compare", words)
    from mesaprobe.report.compare import compare_rows, load_compared, render_comparison

    compared = load_compared([Path(folder) for folder in given.analyses])
    if given.json:
        _print_rows(compare_rows(compared), as_json=True, columns={})
    if given.out is not None or not given.json:
        page = render_comparison(compared, given.out or Path("compare.html"))
        print(page, file=sys.stderr if given.json else sys.stdout)


# --- solve and bench -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SolveArguments:
    """Options of `mesaprobe solve`."""

    file: Annotated[Path | None, tyro.conf.Positional] = None
    """A .tsp, .atsp or .npz file; without one, instances are drawn."""
    problem: ProblemConfig = field(default_factory=ProblemConfig)
    count: int | None = None
    """How many instances are drawn; default 5, and 1000 for the tables gaps and ties."""
    method: str = "auto"
    """auto is exact with proof; a named solver or heuristic otherwise."""
    table: Literal["tours", "bounds", "states", "search", "trace", "gaps", "ties"] = "tours"
    """bounds: lower bounds on every tour. states: all labels of the decisions along an optimal tour (in full with
    --json). search, trace: branch and bound with the weak spanning-tree bound, in total or node by node. gaps, ties:
    how far each rule is from the optimum, and shares of ties; without --problem.* of all families at n = 8, 10, 12."""
    plot: Path | None = None
    """Write a page with tours, bound gaps over time and branch-and-bound trees, e.g. solved.html."""
    time_limit: float | None = None
    """Seconds per instance for the exact methods; when it ends them, "optimal" is null."""
    seed: int = 0
    """Seed of methods that draw, and of drawn instances."""
    json: bool = False
    """One JSON object per line instead of a table."""


def _solve(words: list[str]) -> None:
    given: SolveArguments = _parse(SolveArguments, "solve", words)
    from mesaprobe.labels import command

    drawn = any(word.startswith("--problem.") for word in words)
    problem = given.problem if drawn or (given.count is not None and given.table not in ("gaps", "ties")) else None
    request = command.SolveRequest(given.file, problem, given.count, given.seed, given.method, given.time_limit)
    if given.table == "gaps" or given.table == "ties":
        if given.plot is not None:
            raise UserError(f"--plot draws single instances; leave it out with --table {given.table}")
        if given.json:
            _print_rows(command.reference_json(request, given.table), as_json=True, columns={})
        else:
            print(command.reference_text(request, given.table))
        return
    if given.plot is not None:
        from mesaprobe.report.solve_page import render_solutions

        page = render_solutions(list(command.solved_request(request)), given.plot)
        print(page, file=sys.stderr)
    columns = _TOUR_COLUMNS if given.table == "tours" else _columns(command.COLUMNS[given.table])
    _print_rows(command.instance_rows(request, given.table), as_json=given.json, columns=columns)


def _columns(names: Sequence[str]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Columns named as in JSON."""

    def show(value: Any) -> str:
        if isinstance(value, list):
            return " ".join(map(str, value))
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    return {name.replace("_", " "): partial(lambda row, name: show(row[name]), name=name) for name in names}


_TOUR_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "name": lambda row: row["name"],
    "n": lambda row: str(row["n"]),
    "method": lambda row: row["method"],
    "cost": lambda row: str(row["cost"]),
    "optimal": lambda row: {True: "proven", False: "no claim", None: "no proof"}[row["optimal"]],
    "seconds": lambda row: f"{row['seconds']:.3f}",
    "tour": lambda row: " ".join(map(str, row["tour"])),
}


@dataclass(frozen=True)
class BenchArguments:
    """Options of `mesaprobe bench`."""

    rows: Many = ()
    """Rows to run; default all."""
    json: bool = False
    """One JSON object per line instead of a table."""


def _bench(words: list[str]) -> None:
    given: BenchArguments = _parse(BenchArguments, "bench", words)
    from mesaprobe import bench

    def number(value: float | None) -> str:
        return "absent" if value is None else f"{value:,.4g}"

    met = {True: "yes", False: "NO", None: "-"}
    _print_rows(
        (dataclasses.asdict(row) for row in bench.rows(given.rows or None)),
        as_json=given.json,
        columns={
            "name": lambda row: row["name"],
            "value": lambda row: f"{number(row['value'])} {row['unit']}",
            "peer": lambda row: f"{row['peer']}: {number(row['peer_value'])}",
            "ratio": lambda row: number(row["ratio"]),
            "goal": lambda row: "-" if row["goal"] is None else f">= {number(row['goal'])}",
            "met": lambda row: met[row["met"]],
        },
    )


def _print_rows(
    rows: Iterable[Mapping[str, Any]], *, as_json: bool, columns: Mapping[str, Callable[[Mapping[str, Any]], str]]
) -> None:
    """One JSON object per line as soon as each row is there, or a table of the given columns."""
    if as_json:
        for row in rows:
            print(json.dumps(row, allow_nan=False), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for title in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(show(row) for show in columns.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


# --- zoo -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ZooArguments:
    """Options of `mesaprobe zoo`."""

    action: Annotated[Literal["list", "build", "certify", "calibrate", "table"], tyro.conf.Positional]
    """list: members, mechanisms, certificates, and what accuracy or architecture alone tell of the class.
    build: members that are not there. certify: test that their labels are true. calibrate: run the lines of evidence
    over certified members. table: error rates of the rule, every family judged by a zoo without it."""
    members: tuple[str, ...] = ("all",)
    """Members, families, or compiled, trained, search, heuristic, all."""
    folder: Path = Path("trained_models/zoo")
    """Where the members lie."""
    processes: int = 0
    """Members at a time, one thread each; 0 takes all cores."""
    again: bool = False
    """certify: also where a certificate of these weights is stored."""
    budget: str = "quick"
    """calibrate, table: quick, standard or full."""
    lines: tuple[str, ...] = ()
    """calibrate: only these lines, e.g. E3 E7; default all."""
    records: Path | None = None
    """calibrate, table: where the evidence of members is stored; default inside the package."""
    json: bool = False
    """One JSON object per line instead of a table."""


def _zoo(words: list[str]) -> None:
    given: ZooArguments = _parse(ZooArguments, "zoo", words)
    if given.processes < 0:
        raise UserError(f"processes must not be negative, got {given.processes}")
    if given.action in ("list", "table"):
        (_zoo_list if given.action == "list" else _zoo_table)(given)
        return
    import os

    from mesaprobe.zoo.build import build, certify_members
    from mesaprobe.zoo.catalogue import select

    chosen, processes = select(given.members), given.processes or os.cpu_count() or 1
    if given.action == "build":
        outcomes = build(given.folder, chosen, processes)
    elif given.action == "calibrate":
        from mesaprobe.evidence import BUDGETS, LINES
        from mesaprobe.zoo.calibrate import calibrate
        from mesaprobe.zoo.records import records_folder

        BUDGETS[given.budget]
        outcomes = calibrate(
            given.folder,
            chosen,
            processes,
            budget=given.budget,
            lines=given.lines or tuple(LINES),
            folder=given.records or records_folder(),
        )
    else:
        outcomes = certify_members(given.folder, chosen, processes, again=given.again)
    failed = 0
    for outcome in outcomes:
        row = dataclasses.asdict(outcome)
        print(json.dumps(row) if given.json else f"{outcome.name}: {outcome.text}", flush=True)
        failed += outcome.failed
    if failed:
        raise UserError(f"{failed} of {len(chosen)} members failed; the lines above say why")


def _zoo_list(given: ZooArguments) -> None:
    from mesaprobe.zoo.command import families_certified, list_rows, overlaps

    _print_rows(
        list_rows(given.folder, given.members),
        as_json=given.json,
        columns={
            "name": lambda row: row["name"],
            "family": lambda row: row["family"] + (" (sealed)" if row["sealed"] else ""),
            "class": lambda row: row["class"],
            "degree": lambda row: str(row["degree"]),
            "certified": lambda row: "yes" if row["certified"] else "no",
            "gap": lambda row: "-" if row["gap_mean"] is None else f"{row['gap_mean']:.1%}",
            "mechanism": lambda row: row["mechanism"],
        },
    )
    if given.json:
        return
    for role, families in families_certified(given.folder).items():
        print(f"{role}: {len(families)} families certified ({', '.join(families) or 'none'})")
    for overlap in overlaps(given.folder):
        failed = "; FAILED" if overlap.passed is False else ""
        print(f"{overlap.name} ({overlap.members} members): {overlap.why}{failed}")


def _zoo_table(given: ZooArguments) -> None:
    from mesaprobe.evidence import BUDGETS
    from mesaprobe.verdict.table import stored_table, table_words

    BUDGETS[given.budget]
    table = stored_table(given.budget, "matrix", 8, folder=given.records)
    print(json.dumps(table, allow_nan=False) if given.json else table_words(table))


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "analyze": _analyze,
    "solve": _solve,
    "zoo": _zoo,
    "compare": _compare,
    "report": _report,
    "bench": _bench,
}
