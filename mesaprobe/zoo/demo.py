"""A network of known mechanism to try the instrument on, made in a second: `mesaprobe analyze --demo`."""

from mesaprobe.models import Subject, gpt_subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.zoo.compiled.truncated import lookahead_network


def searcher() -> Subject:
    """A compiled searcher: it compares all paths of two arcs (`lookahead-2` of the zoo).

    >>> searcher().name
    'lookahead-2 (demo)'
    """
    problem = make_problem(ProblemConfig(n=8))
    network = lookahead_network(problem.n, problem.config.levels, 2)
    return gpt_subject(network, problem, "lookahead-2 (demo)", {})
