"""Closes one branch: simplify, take apart, split, use the hypothesis, leave a lemma for the rest.

The order is that of `Discharge.close`, from what is certain to what is a guess. What is left over
when nothing else helps is a conjecture of its own, and whoever finds lemmas is asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prover.builtins import FALSE, TRUE
from prover.program import Equality
from prover.rewriting.steps import Arguments, Cases, Have, Proof, Rewrite, Side
from prover.search import applying, splitting
from prover.search.branch import Branch, is_builtin
from prover.search.conjecture import Conjecture
from prover.search.contradiction import denial
from prover.search.goals import both_sides, changes, same_constructor, says_something
from prover.search.hypotheses import instance_of
from prover.search.remainder import remainders
from prover.search.tasks import Find, Fit, Found, Learn, Outcome, Refine, Stuck, Task
from prover.search.tools import Tools
from prover.terms import BOOL, Apply, Term

_MOST_SPLITS = 5
_LARGEST = 90  # symbols of a goal: nothing larger is worked on


class Discharge:
    """Proofs of branches. `find` looks for lemmas; `stuck` hears of what nothing was found for."""

    def __init__(
        self, tools: Tools, find: Find, learn: Learn, fit: Fit, stuck: Callable[[Equality], None]
    ) -> None:
        self.tools, self.find, self.learn = tools, find, learn
        self.fit, self.stuck = fit, stuck
        self._ways: tuple[Callable[[Branch, Task], Outcome | None], ...] = (
            self._truth,
            self._at_once,
            self._join,
            self._refine,
            self._same_selector,
            self._split,
            self._hypothesis,
            self._contradiction,
            self._refine_known,
            self._congruence,
            self._step_lemmas,
            self._fit,
            self.leave,
        )

    def close(self, branch: Branch, task: Task) -> Outcome:
        """A proof of the branch's goal, or the variable that has to be split first."""
        if not branch.is_closed:
            branch.simplify()
        if branch.is_closed:
            return branch.proof()
        if same_constructor(branch.left, branch.right):
            return self._arguments(branch, task)
        if branch.left.size + branch.right.size <= _LARGEST:
            for way in self._ways:
                outcome = way(branch, task)
                if outcome is not None:
                    return outcome
        if any(True for _ in remainders(branch)):
            self.stuck(branch.goal())
        return Stuck(branch.goal())

    # Taking apart

    def _arguments(self, branch: Branch, task: Task) -> Outcome:
        left, right = branch.left, branch.right
        assert isinstance(left, Apply)
        assert isinstance(right, Apply)
        proofs = []
        for one, other in zip(left.arguments, right.arguments, strict=True):
            outcome = self.close(branch.fork(one, other), task)
            if not isinstance(outcome, tuple):
                return outcome
            proofs.append(outcome)
        return branch.proof(Arguments(tuple(proofs)))

    def _truth(self, branch: Branch, task: Task) -> Outcome | None:
        """`(= s t)` is true where s = t, and `(and a b)` where both are."""
        for side, term, other in both_sides(branch):
            if other is TRUE and is_builtin(term, "="):
                return self._by_part(branch, task, (side, term), Equality(*term.arguments))
            if other is TRUE and is_builtin(term, "and"):
                return self._by_part(branch, task, (side, term), Equality(term.arguments[0], TRUE))
        return None

    def _by_part(
        self, branch: Branch, task: Task, goal: tuple[Side, Apply], part: Equality
    ) -> Outcome:
        """Proves a part of the goal, and rewrites the goal by it."""
        outcome = self.close(branch.fork(part.left, part.right), task)
        if not isinstance(outcome, tuple):
            return outcome
        name = branch.new_name()
        rest = branch.fork(branch.left, branch.right)
        rest.steps = [*branch.steps, Have(name, part, outcome)]
        rest.assume(name, part)
        _, term = goal
        if part.right is not TRUE:  # `(= s t)`, and the facts may turn s = t either way
            return applying.equality(branch, rest, name, goal)
        return self.close(rest, task) if changes(rest, term) else Stuck(branch.goal())

    def _same_selector(self, branch: Branch, task: Task) -> Proof | None:
        """What one function selects is equal where it selects from the same."""
        left = branch.left
        if not isinstance(left, Apply) or left.symbol not in self.tools.book.defined:
            return None
        if self.tools.book.ordering.is_recursive(left.symbol):
            return None
        return self._congruence(branch, task)

    def _congruence(self, branch: Branch, task: Task) -> Proof | None:
        """Calls of one function are equal where their arguments are."""
        left, right = branch.left, branch.right
        if not (isinstance(left, Apply) and isinstance(right, Apply)):
            return None
        if left.symbol is not right.symbol or len(left.arguments) != len(right.arguments):
            return None
        pairs = list(zip(left.arguments, right.arguments, strict=True))
        if not all(self._may_hold(branch, Equality(*pair)) for pair in pairs):
            return None
        outcome = self._arguments(branch, task)
        return outcome if isinstance(outcome, tuple) else None

    def _may_hold(self, branch: Branch, goal: Equality) -> bool:
        if goal.left is goal.right:
            return True
        return any(True for _ in remainders(branch.fork(goal.left, goal.right)))

    # Splitting

    def _at_once(self, branch: Branch, task: Task) -> Outcome | None:
        """The hypotheses alone may be enough."""
        if task.case is None or "at once" in task.tried:
            return None
        for other in applying.with_hypotheses(branch, task.case):
            if other.is_closed:
                return other.proof()
        return None

    def _join(self, branch: Branch, task: Task) -> Outcome | None:
        """The goal is one of the statements that are proved together, for what is smaller."""
        if task.case is None or task.join is None:
            return None
        found = task.join(branch, task.case)
        return None if found is None else self._apply(branch, found)

    def _refine(self, branch: Branch, task: Task) -> Refine | None:
        sides = (branch.left, branch.right)
        if not any(map(says_something, sides)):  # then it rests on what is known
            return self._refine_known(branch, task)
        return self._refined(sides, task)

    def _refine_known(self, branch: Branch, task: Task) -> Refine | None:
        """What is known may wait for a variable that the goal does not wait for."""
        return self._refined(tuple(branch.facts), task)

    def _refined(self, terms: tuple[Term, ...], task: Task) -> Refine | None:
        for variable in splitting.begun_variables(self.tools.book, *terms):
            if task.refinable is not None and variable in task.refinable:
                return Refine(variable)
        return None

    def _split(self, branch: Branch, task: Task) -> Outcome | None:
        if branch.num_splits >= _MOST_SPLITS:
            return None
        for term in splitting.worth_splitting(branch):
            settled = self._constant(branch, task, term) if term.sort is BOOL else None
            if settled is not None:
                return self.close(settled, task)
            return self._by_cases(branch, task, term)
        return None

    def _constant(self, branch: Branch, task: Task, condition: Term) -> Branch | None:
        """The branch with a condition that is always true or always false here as a fact."""
        for value in (TRUE, FALSE):
            claim = branch.fork(condition, value)
            claim.steps = []
            if not any(True for _ in remainders(claim)):
                continue
            outcome = self.leave(claim, task)
            if isinstance(outcome, tuple):
                other = branch.fork(branch.left, branch.right)
                name, known = other.new_name(), Equality(condition, value)
                other.steps = [*branch.steps, Have(name, known, outcome)]
                other.add_proved(name, known)
                return other
        return None

    def _by_cases(self, branch: Branch, task: Task, term: Term) -> Outcome:
        name = branch.new_name()
        branches = []
        for constructor in self.tools.program.constructors(term.sort):
            fields = []
            for sort in constructor.arguments:
                field = self.tools.names.fresh(sort, branch.taken)
                branch.taken[field.name] = None
                fields.append(field)
            other = branch.fork(branch.left, branch.right)
            other.num_splits += 1
            other.assume(name, Equality(term, constructor(*fields)))
            outcome = self.close(other, task)
            if not isinstance(outcome, tuple):
                return outcome
            branches.append((tuple(fields), outcome))
        return branch.proof(Cases(term, name, tuple(branches)))

    # Induction hypotheses

    def _hypothesis(self, branch: Branch, task: Task) -> Outcome | None:
        if task.case is None:
            return None
        if "rules" not in task.tried:
            for other in applying.with_rules(branch, task.case):
                outcome = self.close(other, task.having_tried("rules"))
                if not isinstance(outcome, Stuck):
                    return outcome
        if "outward" not in task.tried:
            turned = applying.outward(branch, task.case)
            if turned is not None:
                outcome = self.close(turned, task.having_tried("outward"))
                if not isinstance(outcome, Stuck):
                    return outcome
        if "facts" not in task.tried:
            known = applying.with_facts(branch, task.case)
            if known is not None:
                return self.close(known, task.having_tried("facts"))
        return None

    # Lemmas

    def leave(self, branch: Branch, task: Task) -> Outcome | None:
        """The rest of the goal is an instance of a lemma, or the branch is stuck."""
        if task.case is not None and task.depth <= 0:
            return None
        return self._leave_just(branch, remainders(branch), task)

    def _leave_just(self, branch: Branch, wanted: Iterable[Conjecture], task: Task) -> Proof | None:
        new = [each for each in wanted if self._is_new(each, task)]
        found = self.find(new, task.depth if task.case is None else task.depth - 1)
        return None if found is None else self._apply(branch, found)

    def _contradiction(self, branch: Branch, task: Task) -> Proof | None:
        """No values meet what is known here: a lemma says so."""
        if task.case is not None and task.depth <= 0:
            return None
        denied = denial(branch)
        if denied is None:
            return None
        outcome = self._leave_just(branch.fork(denied.left, denied.right), [denied], task)
        if outcome is None:
            return None
        other = branch.again()
        name = other.new_name()
        other.steps.append(Have(name, denied.conclusion, outcome))
        other.assume(name, denied.conclusion)
        return other.proof() if other.is_closed else None

    def _step_lemmas(self, branch: Branch, task: Task) -> Outcome | None:
        """A lemma by which the calls of the statement unfold in this case; then once more."""
        if task.case is None or task.depth <= 0 or task.is_rewritten:
            return None
        if not self.learn((branch.left, branch.right), task.case, task.depth - 1):
            return None
        return self.close(branch.again(), task)

    def _fit(self, branch: Branch, task: Task) -> Outcome | None:
        """A hypothesis that nearly fits."""
        if task.case is None or task.depth <= 0 or task.is_rewritten:
            return None
        for other in self.fit(branch, task.case, task.depth - 1):
            outcome = self.close(other, task.having_tried("rules"))
            if not isinstance(outcome, Stuck):
                return outcome
        return None

    def _is_new(self, wanted: Conjecture, task: Task) -> bool:
        return task.itself is None or self.tools.names.canonical(wanted)[0] != task.itself

    def _apply(self, branch: Branch, found: Found) -> Proof | None:
        proofs = []
        for condition in found.statement.conditions:
            proof = branch.normaliser().proof(instance_of(condition, found.by))
            if proof is None:
                return None
            proofs.append(proof)
        given = tuple((v.name, found.by[v]) for v in found.statement.variables())
        rule = f"{found.kind}:{found.name}"
        sides = (branch.left, branch.right)
        step = Rewrite("left", (), rule, given, found.backward, tuple(proofs), *sides)
        return branch.proof(step)
