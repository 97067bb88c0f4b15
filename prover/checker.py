"""Replays a certificate. Whatever found it, only what is accepted here is proved.

A certificate is JSON data: `{"format": FORMAT, "goal": name, "groups": [[lemma, ...], ...]}`. The
lemmas of a group are proved together, and may use those of earlier groups. The last group is
the goal alone, and says what the program's goal of that name says.

A lemma: `name`, `variables` as `[name, sort]`, `conditions` as `[left, right]`, `left`, `right`,
`on` (the variables of its induction, none for no induction) and `cases`: each with `patterns` for
`on`, their `variables`, and a `proof`. The patterns of all cases cover all values. A proof is a
list of steps, from a goal `left = right` and named hypotheses (`condition-1`, ...) to a goal whose
sides are the same, or to a last step that closes it:

=========  ==================================================================================
rewrite    `side` (left, right), `at` (argument numbers), `rule`, `with` (a term for each of the
           rule's variables), `backward`, `conditions` (a proof for each of the rule's)
compute    `side`, `at`: one step of a builtin
have       `name`, `left`, `right`, `proof`: proves an equality here, a hypothesis from then on
injective  `of` (a hypothesis with one constructor on both sides), `field`, `name`
equal      `of` (a hypothesis `(= s t) = true`), `name`: the hypothesis `s = t`
cases      last: `of` (a term of a data type or Bool), `name`, `branches`: for each constructor in
           order its new `variables` and a `proof` with the hypothesis `name`
absurd     last: `of` (a hypothesis that no values meet)
arguments  last: `proofs`, one for each argument: both sides apply one symbol
=========  ==================================================================================

A rule is `define:function:number`, `lemma:name`, `assume:name`, `hypothesis:name` or `ih:name`, the
statement of a lemma of the group that is being proved. That one needs its descent: the instance of
its induction variables, compared from the first with the patterns of the case, must differ first
where it is a strict subterm of the pattern. Values of data types have no endless chains of
subterms, and patterns hold constructors and variables only, so the induction is well-founded; all
other variables of the statement may be instantiated freely.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prover import checks
from prover.builtins import TRUE, are_distinct, is_inside, reduce
from prover.errors import ProverError, Rejected
from prover.notation import Notation, Scope
from prover.patterns import are_patterns, gaps
from prover.positions import is_strict_subterm, replace_at, subterm_at
from prover.program import Equality, Program, Statement
from prover.terms import Apply, Kind, Term, Variable, substitute, variables

FORMAT = "thoth-certificate-1"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked: the goal, the lemmas on the way, and the assumptions that were used."""

    statement: Statement
    lemmas: tuple[Statement, ...]
    assumptions: tuple[Statement, ...]

    def __str__(self) -> str:
        lines = [f"proved: {self.statement}"]
        lines += [f"  assuming {each.name}: {each}" for each in self.assumptions]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Lemma:
    statement: Statement
    on: tuple[Variable, ...]


@dataclass(frozen=True)
class _State:
    """Where a proof stands: the goal, what may be used, and the case it belongs to."""

    goal: Equality
    hypotheses: Mapping[str, Equality]
    scope: Scope
    patterns: tuple[Term, ...]
    group: Mapping[str, _Lemma] = field(default_factory=dict)

    def with_hypothesis(self, name: str, equality: Equality) -> _State:
        if name in self.hypotheses:
            raise Rejected(f"a hypothesis {name} is there already")
        return replace(self, hypotheses={**self.hypotheses, name: equality})


def verify(program: Program, certificate: Any) -> Verified:
    """What the certificate proves of the program.

    Raises Inadmissible for the program and Rejected for the certificate, whatever data it is.
    """
    checks.check(program)
    checker = _Checker(program)
    with _rejecting(checker):
        return checker.run(certificate)


class Replay:
    """Lemmas of a program that `checks.check` let pass, each group proved from those before it.

    All raise Rejected, whatever data it is; what was proved before stays proved.
    """

    def __init__(self, program: Program) -> None:
        self._checker = _Checker(program)

    def stated(self, lemma: Any) -> Statement:
        """What a lemma says, proved or not."""
        with _rejecting(self._checker):
            return self._checker.lemma(lemma).statement

    def add(self, group: Any) -> None:
        """Proves a group of lemmas."""
        with _rejecting(self._checker):
            self._checker.group(group)


@contextmanager
def _rejecting(checker: _Checker) -> Iterator[None]:
    try:
        yield
    except Rejected as error:
        raise Rejected(error.reason, checker.path) from None
    except RecursionError:
        raise Rejected("it is nested too deep", checker.path) from None
    except (ProverError, IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected(f"malformed: {error}", checker.path) from None


class _Checker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.path = ""
        self.notation = Notation(program)
        self.proved: dict[str, Statement] = {}
        self.assumptions = {each.name: each for each in program.assumptions}
        self.used: dict[str, Statement] = {}

    def run(self, certificate: Any) -> Verified:
        if certificate["format"] != FORMAT:
            raise Rejected("unknown format")
        groups = certificate["groups"]
        for group in groups:
            self.group(group)
        (goal,) = (each for each in self.program.goals if each.name == certificate["goal"])
        if len(groups[-1]) != 1 or groups[-1][0]["name"] != goal.name:
            raise Rejected("the last lemma is not the goal")
        if self.proved.get(goal.name) != goal:
            raise Rejected("the last lemma does not say what the goal says")
        del self.proved[goal.name]
        return Verified(goal, tuple(self.proved.values()), tuple(self.used.values()))

    def group(self, data: Any) -> None:
        group = {}
        for each in data:
            self.path = str(each["name"])
            lemma = self.lemma(each)
            if lemma.statement.name in self.proved or lemma.statement.name in group:
                raise Rejected("a lemma of this name is there already")
            group[lemma.statement.name] = lemma
        for each in data:
            self._induction(group[each["name"]], each["cases"], group)
        self.proved |= {name: lemma.statement for name, lemma in group.items()}

    def lemma(self, data: Any) -> _Lemma:
        scope = self.notation.variables(data["variables"], {})
        conditions = tuple(
            self.notation.equality(one, other, scope) for one, other in data["conditions"]
        )
        conclusion = self.notation.equality(data["left"], data["right"], scope)
        on = tuple(scope[name] for name in data["on"])
        if len(dict.fromkeys(on)) != len(on):
            raise Rejected("an induction on one variable twice")
        return _Lemma(Statement(data["name"], tuple(scope.values()), conditions, conclusion), on)

    def _induction(self, lemma: _Lemma, cases: Any, group: Mapping[str, _Lemma]) -> None:
        statement, on = lemma.statement, lemma.on
        kept = {v.name: v for v in statement.variables if v not in on}
        rows = []
        for number, case in enumerate(cases, 1):
            self.path = f"{statement.name}, case {number}"
            new = self.notation.variables(case["variables"], kept)
            patterns = tuple(self.notation.term(text, new) for text in case["patterns"])
            if [p.sort for p in patterns] != [v.sort for v in on] or not are_patterns(patterns):
                raise Rejected("its patterns do not fit the induction variables")
            rows.append(patterns)
            by = dict(zip(on, patterns, strict=True))
            conditions = {
                f"condition-{index}": _instance(condition, by)
                for index, condition in enumerate(statement.conditions, 1)
            }
            goal = _instance(statement.conclusion, by)
            self._prove(_State(goal, conditions, {**kept, **new}, patterns, group), case["proof"])
        self.path = statement.name
        for gap in gaps(self.program.constructors, rows, [v.sort for v in on]):
            raise Rejected(f"no case for {', '.join(map(str, gap)) or 'it'}")

    # Proofs

    def _prove(self, state: _State, proof: Any) -> None:
        path = self.path
        for number, step in enumerate(proof, 1):
            self.path = f"{path}, step {number}"
            if step["by"] in _LAST:
                if number != len(proof):
                    raise Rejected("a step follows what closes the proof")
                _LAST[step["by"]](self, state, step)
                self.path = path
                return
            if step["by"] not in _STEPS:
                raise Rejected(f"unknown step {step['by']}")
            state = _STEPS[step["by"]](self, state, step)
        self.path = path
        if state.goal.left is not state.goal.right:
            raise Rejected(f"it ends with {state.goal}, and the sides differ")

    def _rewrite(self, state: _State, step: Any) -> _State:
        rule, by, conditions = self._rule(state, step)
        proofs = step.get("conditions", [])
        if len(proofs) != len(conditions):
            raise Rejected(f"the rule has {len(conditions)} conditions")
        for condition, proof in zip(conditions, proofs, strict=True):
            self._prove(replace(state, goal=_instance(condition, by)), proof)
        old, new = substitute(rule.left, by), substitute(rule.right, by)
        if step.get("backward", False):
            old, new = new, old
        return self._replace(state, step, old, new)

    def _compute(self, state: _State, step: Any) -> _State:
        old = subterm_at(self._side(state, step), tuple(step["at"]))
        new = reduce(old)
        if new is old:
            raise Rejected(f"nothing is to compute in {old}")
        return self._replace(state, step, old, new)

    def _side(self, state: _State, step: Any) -> Term:
        if step["side"] not in ("left", "right"):
            raise Rejected("a side is left or right")
        return state.goal.left if step["side"] == "left" else state.goal.right

    def _replace(self, state: _State, step: Any, old: Term, new: Term) -> _State:
        side, at = self._side(state, step), tuple(step["at"])
        found = subterm_at(side, at)
        if found is not old:
            raise Rejected(f"the rule speaks of {old}, and here is {found}")
        side = replace_at(side, at, new)
        is_left = step["side"] == "left"
        goal = Equality(side, state.goal.right) if is_left else Equality(state.goal.left, side)
        return replace(state, goal=goal)

    def _rule(
        self, state: _State, step: Any
    ) -> tuple[Equality, dict[Variable, Term], tuple[Equality, ...]]:
        """The equality of a rule, its instance, and the conditions that are to be proved."""
        kind, _, name = step["rule"].partition(":")
        texts = step.get("with", {})
        if kind == "hypothesis":
            return state.hypotheses[name], self._instance_of((), texts, state.scope), ()
        if kind == "define":
            name, _, number = name.rpartition(":")
            equations = self.program.functions[self.notation.symbols[name]].equations
            if not 1 <= int(number) <= len(equations):
                raise Rejected(f"{name} has {len(equations)} equations")
            found = equations[int(number) - 1]
            by = self._instance_of(variables(found.left), texts, state.scope)
            return Equality(found.left, found.right), by, ()
        statement = self._statement(state, kind, name)
        by = self._instance_of(statement.variables, texts, state.scope)
        if kind == "ih":
            self._descends(state, state.group[name], by)
        return statement.conclusion, by, statement.conditions

    def _statement(self, state: _State, kind: str, name: str) -> Statement:
        if kind == "lemma":
            return self.proved[name]
        if kind == "assume":
            self.used[name] = self.assumptions[name]
            return self.used[name]
        if kind == "ih":
            return state.group[name].statement
        raise Rejected(f"unknown rule {kind}")

    def _instance_of(
        self, bound: tuple[Variable, ...], texts: Any, scope: Scope
    ) -> dict[Variable, Term]:
        """A term of the right sort for each variable, no more and no fewer."""
        if sorted(texts) != sorted(variable.name for variable in bound):
            raise Rejected("the rule's variables are others")
        by = {variable: self.notation.term(texts[variable.name], scope) for variable in bound}
        for variable, term in by.items():
            if term.sort is not variable.sort:
                raise Rejected(f"{variable.name} has another sort")
        return by

    def _descends(self, state: _State, lemma: _Lemma, by: Mapping[Variable, Term]) -> None:
        if len(lemma.on) == len(state.patterns):
            for variable, pattern in zip(lemma.on, state.patterns, strict=True):
                if by[variable] is not pattern:
                    if is_strict_subterm(by[variable], pattern):
                        return
                    break
        raise Rejected("the induction hypothesis is used for what is not smaller")

    def _have(self, state: _State, step: Any) -> _State:
        equality = self.notation.equality(step["left"], step["right"], state.scope)
        self._prove(replace(state, goal=equality), step["proof"])
        return state.with_hypothesis(step["name"], equality)

    def _injective(self, state: _State, step: Any) -> _State:
        known, number = state.hypotheses[step["of"]], step["field"]
        left, right = known.left, known.right
        if not (isinstance(left, Apply) and isinstance(right, Apply) and left.is_constructor):
            raise Rejected("no constructor is on the left")
        if left.symbol is not right.symbol or not 0 <= number < len(left.arguments):
            raise Rejected("there is no such field on both sides")
        equality = Equality(left.arguments[number], right.arguments[number])
        return state.with_hypothesis(step["name"], equality)

    def _equal(self, state: _State, step: Any) -> _State:
        known = state.hypotheses[step["of"]]
        term = known.left
        if not isinstance(term, Apply) or known.right is not TRUE or len(term.arguments) != 2:
            raise Rejected("it is no (= s t) = true")
        if term.symbol.name != "=" or term.symbol.kind is not Kind.BUILTIN:
            raise Rejected("it is no (= s t) = true")
        return state.with_hypothesis(step["name"], Equality(*term.arguments))

    def _cases(self, state: _State, step: Any) -> None:
        term = self.notation.term(step["of"], state.scope)
        constructors = self.program.constructors(term.sort)
        if not constructors or len(constructors) != len(step["branches"]):
            raise Rejected(f"{term.sort} has {len(constructors)} constructors")
        path = self.path
        for constructor, branch in zip(constructors, step["branches"], strict=True):
            self.path = f"{path}, {constructor.name}"
            typed = zip(branch["variables"], constructor.arguments, strict=True)
            new = self.notation.variables([[name, str(sort)] for name, sort in typed], state.scope)
            equality = Equality(term, constructor(*new.values()))
            inner = replace(state, scope={**state.scope, **new})
            self._prove(inner.with_hypothesis(step["name"], equality), branch["proof"])

    def _absurd(self, state: _State, step: Any) -> None:
        known = state.hypotheses[step["of"]]
        one, other = known.left, known.right
        if not (are_distinct(one, other) or is_inside(one, other) or is_inside(other, one)):
            raise Rejected(f"{known} may be")

    def _arguments(self, state: _State, step: Any) -> None:
        one, other = state.goal.left, state.goal.right
        if not (isinstance(one, Apply) and isinstance(other, Apply) and one.symbol is other.symbol):
            raise Rejected("the sides apply different symbols")
        pairs = zip(one.arguments, other.arguments, step["proofs"], strict=True)
        for left, right, proof in pairs:
            self._prove(replace(state, goal=Equality(left, right)), proof)


def _instance(equality: Equality, by: Mapping[Variable, Term]) -> Equality:
    return Equality(substitute(equality.left, by), substitute(equality.right, by))


_STEPS = {
    "rewrite": _Checker._rewrite,
    "compute": _Checker._compute,
    "have": _Checker._have,
    "injective": _Checker._injective,
    "equal": _Checker._equal,
}
_LAST = {
    "cases": _Checker._cases,
    "absurd": _Checker._absurd,
    "arguments": _Checker._arguments,
}
