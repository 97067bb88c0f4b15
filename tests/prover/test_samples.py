"""Samples refute what is false, keep what is true, and agree with the evaluator on every value."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from prover.checks import check
from prover.errors import OutOfFuel, ProverError, Undecided
from prover.evaluator import Evaluator
from prover.notation import Notation
from prover.program import Equality, Program, Statement
from prover.samples.batch import Batch
from prover.samples.machine import Machine
from prover.samples.pool import Pool
from prover.samples.samples import Samples
from prover.samples.values import Ground, Value, as_term
from prover.syntax.problem import load, parse
from prover.terms import Apply, Kind, Symbol, Term, Variable, substitute, variables

TEXT = """
data nat = zero | succ(nat)
data list = nil | cons(nat, list)
data tree = leaf | node(tree, nat, tree)
free f(nat): nat
fun plus(nat, nat): nat
plus(zero, y) = y
plus(succ(x), y) = succ(plus(x, y))
fun exp(nat): nat
exp(zero) = succ(zero)
exp(succ(n)) = plus(exp(n), exp(n))
fun tower(nat): nat
tower(zero) = succ(zero)
tower(succ(n)) = exp(tower(n))
fun deep(tree): nat
deep(leaf) = zero
deep(node(l, n, r)) = if deeper(deep(l), deep(r)) then succ(deep(r)) else succ(deep(l))
fun deeper(nat, nat): bool
deeper(x, zero) = false
deeper(zero, succ(y)) = true
deeper(succ(x), succ(y)) = deeper(x, y)
fun count(list): int
count(nil) = 0
count(cons(x, xs)) = if x = zero then count(xs) else 1 + count(xs)
fun map(nat -> nat, list): list
map(g, nil) = nil
map(g, cons(x, xs)) = cons(g(x), map(g, xs))
fun twice(nat -> nat, nat): nat
twice(g, x) = g(g(x))
prove {goal}
"""
EVERYTHING = """
forall x: nat, g: nat -> nat, t: tree, xs: list.
tower(x) = twice(g, f(x)) and count(map(g, xs)) = 0 and deeper(x, deep(t))
"""
PROGRAM = parse(TEXT.format(goal=EVERYTHING).encode(), "some.prove")
NOTATION = Notation(PROGRAM)
NAT, LIST, TREE = (NOTATION.sorts[name] for name in ("nat", "list", "tree"))


def goal(text: str) -> tuple[Samples, Statement]:
    program = parse(TEXT.format(goal=text).encode(), "some.prove")
    return Samples(program), program.goals[0]


@pytest.mark.parametrize(
    "text",
    [
        "forall x: nat, y: nat. plus(x, y) = x",
        "forall x: nat. exp(x) = succ(plus(x, x))",
        "forall t: tree. deeper(deep(t), succ(succ(succ(zero)))) = true",
        "forall g: nat -> nat, x: nat. twice(g, x) = g(x)",
        "forall g: nat -> nat, xs: list. map(g, map(g, xs)) = map(g, xs)",
        "forall x: nat. f(plus(x, x)) = f(x)",
        "forall x: nat, y: nat. deeper(x, y) => deeper(succ(x), y)",
        "forall x: nat, y: nat, z: nat. x = plus(y, z) => x = plus(z, z)",
        "forall x: nat, xs: list. count(cons(x, xs)) = count(xs)",
    ],
)
def test_what_is_false_is_refuted_and_an_evaluator_agrees(text: str) -> None:
    samples, statement = goal(text)
    values = samples.refute(statement)
    assert values is not None
    assert set(values) == set(statement.variables)
    assert Evaluator(samples.program).refutes(statement, values)


@pytest.mark.parametrize(
    "text",
    [
        "forall x: nat, y: nat. plus(x, y) = plus(y, x)",
        "forall g: nat -> nat, x: nat. twice(g, x) = g(g(x))",
        "forall x: nat, y: nat. deeper(x, y) => deeper(x, succ(y))",
        "forall x: nat, y: nat, z: nat. x = plus(y, z) => x = plus(z, y)",
        "forall x: nat. tower(succ(x)) = plus(zero, tower(succ(x)))",
    ],
)
def test_what_is_true_is_not_refuted(text: str) -> None:
    samples, statement = goal(text)
    conclusion = statement.conclusion
    assert samples.refute(statement, 4) is None
    assert samples.may_hold(conclusion.left, conclusion.right, statement.conditions)


def test_the_quick_test_sees_what_is_false() -> None:
    samples = Samples(PROGRAM)
    x, y = Variable("x", NAT), Variable("y", NAT)
    plus, succ = NOTATION.symbols["plus"], NOTATION.symbols["succ"]
    deeper = NOTATION.symbols["deeper"](x, y)
    true = NOTATION.symbols["true"]()
    assert samples.may_hold(plus(x, y), plus(y, x))
    assert not samples.may_hold(plus(x, y), plus(x, x))
    assert not samples.may_hold(plus(x, y), plus(x, x), (Equality(deeper, true),))
    assert samples.may_hold(plus(x, y), plus(x, x), (Equality(x, y),))
    assert (
        samples.may_hold(plus(x, y), x, (Equality(deeper, NOTATION.symbols["false"]()),)) is False
    )
    assert not samples.may_hold(x, succ(x))


def test_a_signature_is_the_same_for_equal_terms_and_names_no_variable() -> None:
    samples = Samples(PROGRAM)
    x, y = Variable("x", NAT), Variable("y", NAT)
    plus = NOTATION.symbols["plus"]
    assert samples.signature(plus(x, y), (x, y)) == samples.signature(plus(y, x), (x, y))
    assert samples.signature(plus(x, x), (x, y)) != samples.signature(plus(y, x), (x, y))
    assert samples.signature(plus(x, y), (x, y)) == samples.signature(plus(y, x), (y, x))
    assert samples.signature(NOTATION.symbols["tower"](x), (x,)) is None


def test_explosions_cost_a_bounded_number_of_steps() -> None:
    samples, statement = goal("forall x: nat, y: nat. tower(plus(x, y)) = tower(plus(y, x))")
    assert samples.refute(statement) is None
    assert samples.steps < 300_000


def test_samples_hold_long_lists_and_high_trees() -> None:
    samples = Samples(PROGRAM)
    t, xs, n = Variable("t", TREE), Variable("xs", LIST), Variable("n", NAT)
    batch = samples.batch((t, xs, n))
    height = batch.column(NOTATION.symbols["deep"](t))
    assert max(as_term(value).size for value in height if value is not None) > 4
    assert max(_size(value) for value in batch.given[xs]) > 12
    assert len(dict.fromkeys(batch.given[n])) > 6


def _size(value: Ground | None) -> int:
    return as_term(value).size if value is not None else 0


def test_statements_that_differ_in_names_alone_are_asked_once() -> None:
    samples = Samples(PROGRAM)
    plus = NOTATION.symbols["plus"]
    steps = []
    for one, other in (("x", "y"), ("a", "b"), ("y", "x")):
        a, b = Variable(one, NAT), Variable(other, NAT)
        statement = Statement("", (b, a), (), Equality(plus(a, b), plus(b, a)))
        samples.refute(statement)
        steps.append(samples.steps)
    assert steps[0] > 0
    assert steps[0] == steps[1] == steps[2]


def test_forgetting_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    plus, exp = NOTATION.symbols["plus"], NOTATION.symbols["exp"]
    x, y = Variable("x", NAT), Variable("y", NAT)
    terms: list[Term] = [plus(x, y), plus(y, x), exp(x), plus(exp(x), y), plus(y, exp(x)), x]

    def answers() -> list[object]:
        samples = Samples(PROGRAM)
        pairs = list(itertools.product(terms, terms))
        asked = [samples.may_hold(one, other) for one, other in pairs]
        signed = [samples.signature(term, (x, y)) for term in terms]
        return [asked, signed, [samples.counterexample(_equation(*pair)) for pair in pairs]]

    before = answers()
    monkeypatch.setattr("prover.samples.samples._MOST_SPENT", 10)
    assert answers() == before


def _equation(left: Term, right: Term) -> Statement:
    return Statement("", variables(left, right), (), Equality(left, right))


def test_free_functions_keep_their_assumptions(folder: Path) -> None:
    for path in sorted((folder / "laws").glob("*.smt2")):
        program = load(path)
        samples = Samples(program)
        for each in program.assumptions:
            assert samples.counterexample(each, 4) is None, (path.name, each)
            flipped = each.conclusion
            assert samples.may_hold(flipped.right, flipped.left)


def test_a_model_of_assumptions_still_tells_apart(folder: Path) -> None:
    program = load(folder / "laws" / "law03_split_attention.smt2")
    samples = Samples(program)
    merge = next(symbol for symbol in program.free if len(symbol.arguments) == 2)
    a, b = (Variable(name, merge.result) for name in "ab")
    assert not samples.may_hold(merge(a, b), merge(b, a))
    # But what is false in one model alone refutes nothing.
    assert samples.counterexample(_equation(merge(a, b), merge(b, a))) is not None
    assert samples.refute(_equation(merge(a, b), merge(b, a))) is None


@pytest.fixture
def folder() -> Path:
    named = os.environ.get("THOTH_DATA")
    if not named or not (Path(named) / "prover").is_dir():
        pytest.skip("THOTH_DATA is not set to a folder with prover/: problems in SMT-LIB and TIP")
    return Path(named) / "prover"


def test_false_laws_are_refuted_and_true_ones_are_not(folder: Path) -> None:
    for path in sorted((folder / "laws").glob("*.smt2")):
        program = load(path)
        (statement,) = program.goals
        values = Samples(program).refute(statement, 2)
        assert (values is not None) == path.name.startswith("false"), path.name


def test_most_false_problems_are_refuted(folder: Path) -> None:
    found = 0
    for path in sorted((folder / "tip" / "false").glob("*.smt2")):
        program = _checked(path)
        if program is not None:
            samples = Samples(program)
            values = [samples.refute(statement, 12) for statement in program.goals]
            found += any(each is not None for each in values)
    assert found >= 31


def test_no_true_problem_is_refuted(folder: Path) -> None:
    for name in ("tip/isaplanner", "tip/prod"):
        for path in sorted((folder / name).glob("*.smt2"))[::3]:
            program = load(path)
            samples = Samples(program)
            for each in program.goals:
                conclusion = each.conclusion
                assert samples.refute(each) is None, path
                assert samples.may_hold(conclusion.left, conclusion.right, each.conditions), path


@pytest.mark.parametrize("share", [10, pytest.param(1, marks=pytest.mark.long)])
def test_every_value_is_what_the_evaluator_says(folder: Path, share: int) -> None:
    compared = 0
    for path in sorted(folder.rglob("*.smt2"))[::share]:
        program = _checked(path)
        if program is not None:
            compared += _compare(program, path)
    assert compared > 15_000 / share


def _checked(path: Path) -> Program | None:
    try:
        program = load(path)
        check(program)
    except ProverError:
        return None
    return program


def _compare(program: Program, path: Path) -> int:
    """Applies every function to values and to what others gave; counts what both computed."""
    machine = Machine(program)
    pool, random = Pool(machine), Random(5)
    compared = 0
    for symbol in (*program.functions, *program.free):
        for size in (1, 2, 3, 4, 6, 9):
            row = tuple(pool.draw(sort, size, random) for sort in symbol.arguments)
            term = symbol(*map(as_term, row))
            value = machine.run(symbol, row, 2_000)
            expected = _evaluated(program, term)
            if value is not None and expected is not None:
                assert as_term(value) is expected, (path, term)
                compared += 1
    return compared


def _evaluated(program: Program, term: Term) -> Apply | None:
    try:
        value = Evaluator(program, fuel=20_000).value(term)
    except (OutOfFuel, Undecided):
        return None
    assert isinstance(value, Apply)
    return value


def test_terms_with_builtins_are_what_the_evaluator_says() -> None:
    random = Random(2)
    for _ in range(300):
        names = [Variable("x", NAT), Variable("xs", LIST), Variable("t", TREE)]
        term = _drawn_term(random, names, random.choice((NAT, LIST)), 4)
        machine = Machine(PROGRAM)
        pool = Pool(machine)
        values = {v: pool.draw(v.sort, random.randrange(6), random) for v in names}
        batch = Batch(machine, {v: (value,) for v, value in values.items()}, 1)
        (value,) = batch.column(term)
        by = {v: as_term(each) for v, each in values.items()}
        expected = _evaluated(PROGRAM, substitute(term, by))
        if value is not None and expected is not None:
            assert as_term(value) is expected


def _drawn_term(random: Random, names: list[Variable], sort: object, depth: int) -> Term:
    fitting = [symbol for symbol in PROGRAM.symbols() if symbol.result is sort]
    leaves: list[Term] = [name for name in names if name.sort is sort]
    leaves += [symbol() for symbol in fitting if not symbol.arguments]
    deep = [s for s in fitting if s.arguments and s.name not in ("exp", "tower")]
    if (depth == 0 or random.random() < 0.2 or not deep) and leaves:
        return random.choice(leaves)
    symbol = random.choice(deep)
    arguments: list[Term] = []
    for each in symbol.arguments:
        if each.is_function:
            arguments.append(NOTATION.symbols["plus"](_drawn_term(random, names, NAT, 0)))
        else:
            arguments.append(_drawn_term(random, names, each, depth - 1))
    return symbol(*arguments)


SCRIPT = """
import sys
from pathlib import Path
from prover.samples.samples import Samples
from prover.syntax.problem import parse
program = parse(sys.stdin.buffer.read(), "some.prove")
samples = Samples(program)
print(samples.refute(program.goals[0]), samples.steps)
conclusion = program.goals[0].conclusion
print(samples.signature(conclusion.left, program.goals[0].variables))
"""


def test_the_same_under_any_salt_of_hashes() -> None:
    text = TEXT.format(goal="forall t: tree, x: nat. deep(node(t, f(x), t)) = succ(succ(succ(x)))")
    outputs = [_run_script(text, salt) for salt in ("0", "1", "12345")]
    assert outputs[0].count("\n") == 2
    assert len(dict.fromkeys(outputs)) == 1


def _run_script(text: str, salt: str) -> str:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=text, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_function_value_is_interned_and_shown() -> None:
    machine = Machine(PROGRAM)
    plus = NOTATION.symbols["plus"]
    zero = machine.values.of(NOTATION.symbols["zero"]())
    partial = machine.values.make(plus, (zero,))
    assert partial is machine.values.of(plus(NOTATION.symbols["zero"]()))
    assert partial.is_function
    assert str(as_term(partial)) == "(plus zero)"


def test_an_equation_that_is_too_nested_to_compile_has_no_value() -> None:
    nested = "succ(" * 200 + "x" + ")" * 200
    text = f"data nat = zero | succ(nat)\nfun far(nat): nat\nfar(x) = {nested}\n"
    program = parse(f"{text}prove forall x: nat. far(x) = x".encode(), "some.prove")
    (symbol,) = program.functions
    machine = Machine(program)
    zero = machine.values.make(program.data[symbol.result].constructors[0], ())
    assert machine.run(symbol, (zero,), 100) is None
    assert Samples(program).refute(program.goals[0]) is None


def test_kinds_of_symbols_are_computed() -> None:
    machine = Machine(PROGRAM)
    element = Symbol("!s0", (), NAT, Kind.ELEMENT)
    assert isinstance(machine.values.of(element()), Value)
    assert machine.run(NOTATION.symbols["and"], (True, False), 10) is False
    assert machine.run(NOTATION.symbols["mod"], (-7, 2), 10) == 1
    assert machine.run(NOTATION.symbols["div"], (1, 0), 10) is None
