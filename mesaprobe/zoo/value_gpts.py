"""Searchers in exactly the shape of the shipped subjects: families lookahead, interchange_trained, value_iteration.

Ordinary GPTs (4 layers, 128 wide, prefix attention, layer norm), trained on the choices of a searcher and by
interchange: after block 2 the decode token holds the value of every free city in a known subspace, and the choice
follows what stands there and nothing else there (`training.value_states`; method.md section 6.1, P5, P6 and P8). They
start from a shipped subject's weights, so that training is short.
"""

from mesaprobe.models.config import GPTConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import ValueStates
from mesaprobe.training.valuations import VALUATIONS
from mesaprobe.zoo.intended_states import Values
from mesaprobe.zoo.members import ZOO, Member, Taught

SHAPE = GPTConfig(d_model=128, n_layers=4, n_heads=4, d_mlp=512)
OPTIMAL = "trained_models/matrix8-optimal"


def value_gpt(lesson: ValueStates, steps: int, *, start: str = OPTIMAL, seed: int = 0) -> Course:
    """A GPT of the shipped shape, on `matrix` instances of 8 cities."""
    return Course(
        lesson=lesson,
        problem=ProblemConfig(n=8),
        model=SHAPE,
        start=start,
        optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200),
        steps=steps,
        batch_size=24,
        decay_share=0.25,
        evaluate_every=50,
        seed=seed,
    )


def _add(name: str, family: str, course: Course) -> None:
    lesson = course.lesson
    assert isinstance(lesson, ValueStates)
    valuation = VALUATIONS[lesson.valuation]
    states = Values(lesson.valuation, lesson.layer, lesson.subspace_seed)
    ZOO.add(
        name,
        Member(
            name=name,
            family=family,
            role="search",
            degree=valuation.degree,
            mechanism=f"compares {valuation.mechanism}, and goes on with the least",
            recipe=Taught(course),
            reference=states,
            states=states,
        ),
    )


_add("lookahead-4x128", "lookahead", value_gpt(ValueStates("two_arcs"), 2000))
_add("interchange-4x128", "interchange_trained", value_gpt(ValueStates("ordered_completions"), 1700))
_add(
    "value_iteration-4x128",
    "value_iteration",
    value_gpt(ValueStates("walks_one"), 800, start="trained_models/zoo/trained/lookahead-4x128"),
)
# Second attempts, trained for longer: those of these names without `-long` missed their certificates and are discarded.
_add("interchange-4x128-long", "interchange_trained", value_gpt(ValueStates("ordered_completions"), 4000))
_add(
    "value_iteration-4x128-long",
    "value_iteration",
    value_gpt(ValueStates("walks_one"), 2000, start="trained_models/zoo/trained/lookahead-4x128"),
)
# A third attempt at whole completions. Four shared orders name few next cities, so that choosing among those alone
# agrees with the algorithm more often than any rule: no erasure could pass. Here every free city has a completion of
# its own.
_add(
    "listed_completions-4x128",
    "interchange_trained",
    value_gpt(ValueStates("listed_completions"), 4000, start="trained_models/zoo/trained/lookahead-4x128"),
)
