"""The commands of a file, one by one, as the signature that they make."""

from __future__ import annotations

from collections.abc import Callable

from prover.syntax.sexpr import Node, Source
from prover.syntax.signature import (
    ConstructorTemplate,
    DataTemplate,
    FunctionTemplate,
    Signature,
    generic,
)
from prover.terms import Sort

IGNORED = {"set-logic", "set-info", "set-option", "check-sat", "get-model", "get-info", "exit"}

# Commands of our own language; no atom of a file begins with a space.
TOTAL, EQUATION, NAMED = " total", " equation", " named"


def declare(source: Source, nodes: tuple[Node, ...], assertions_define: bool = True) -> Signature:
    """The signature of a file by its commands."""
    if not nodes:
        raise source.error("the file is empty: there is nothing to prove", 0)
    signature = Signature(source, assertions_define=assertions_define)
    for node in nodes:
        if not node.head:
            raise source.error("a command was expected", node)
        if node.head not in IGNORED:
            _command(signature, node)
    if assertions_define and not signature.goals:
        _take_negated_goal(signature)
    if not signature.goals:
        raise source.error("there is no goal: no prove, assert-not or (assert (not ...))", 0)
    return signature


def _command(signature: Signature, node: Node) -> None:
    rule = _COMMANDS.get(node.head)
    if rule is None:
        raise signature.source.error("unknown command", node)
    shapes, run = rule
    if len(node.items) - 1 not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise signature.source.error(f"{node.head} takes {wanted} parts", node)
    run(signature, node)


def _take_negated_goal(signature: Signature) -> None:
    """SMT-LIB proves by refuting: the last (assert (not ...)) is the goal."""
    for index in reversed(range(len(signature.assertions))):
        node = signature.assertions[index]
        if node.head == "not" and len(node.items) == 2:
            _add_goal(signature, node.items[1])
            del signature.assertions[index]
            return


def _atoms(signature: Signature, node: Node) -> tuple[str, ...]:
    if not node.is_list or any(item.is_list for item in node.items):
        raise signature.source.error("a list of names was expected", node)
    return tuple(item.text for item in node.items)


def _par(signature: Signature, node: Node) -> tuple[tuple[str, ...], tuple[Node, ...]]:
    """The parameters of `(par (a b) body ...)`, and the body; none for anything else."""
    if node.is_list and node.head == "par" and len(node.items) >= 3:
        return _atoms(signature, node.items[1]), node.items[2:]
    return (), (node,)


def _new_sort(signature: Signature, name: Node, arity: int) -> None:
    if name.is_list or name.text in signature.sorts or name.text in ("Bool", "Int", "=>"):
        raise signature.source.error("a sort of this name is there already", name)
    signature.sorts[name.text] = arity


def _declare_sort(signature: Signature, node: Node) -> None:
    arity = node.items[2].text if len(node.items) == 3 else "0"
    if not arity.isdecimal():
        raise signature.source.error("the number of parameters was expected", node)
    _new_sort(signature, node.items[1], int(arity))


def _declare_datatype(signature: Signature, node: Node) -> None:
    name, body = node.items[1:]
    parameters, inner = _par(signature, body)
    _new_sort(signature, name, len(parameters))
    _add_data(signature, name, parameters, inner[0].items)


def _declare_datatypes(signature: Signature, node: Node) -> None:
    heads, bodies = node.items[1:]
    if all(not item.is_list for item in heads.items):
        _old_datatypes(signature, _atoms(signature, heads), bodies)
        return
    if len(heads.items) != len(bodies.items):
        raise signature.source.error("as many data types as names were expected", node)
    for head in heads.items:
        if len(head.items) != 2 or not head.items[1].text.isdecimal():
            raise signature.source.error("(name arity) was expected", head)
        _new_sort(signature, head.items[0], int(head.items[1].text))
    for head, body in zip(heads.items, bodies.items, strict=True):
        parameters, inner = _par(signature, body)
        if len(parameters) != int(head.items[1].text):
            raise signature.source.error("another number of parameters was declared", body)
        _add_data(signature, head.items[0], parameters, inner[0].items)


def _old_datatypes(signature: Signature, parameters: tuple[str, ...], bodies: Node) -> None:
    for body in bodies.items:
        if not body.head:
            raise signature.source.error("(name constructors) was expected", body)
        _new_sort(signature, body.items[0], len(parameters))
    for body in bodies.items:
        _add_data(signature, body.items[0], parameters, body.items[1:])


def _add_data(
    signature: Signature, name: Node, parameters: tuple[str, ...], bodies: tuple[Node, ...]
) -> None:
    if not bodies:
        raise signature.source.error("a data type needs a constructor", name)
    made = tuple(_constructor(signature, body, generic(parameters)) for body in bodies)
    sort = Sort(name.text, tuple(generic(parameters).values()))
    template = DataTemplate(sort, parameters, made)
    signature.data[name.text] = template
    for constructor, body in zip(made, bodies, strict=True):
        _refuse_twice(signature, constructor.name, body)
        signature.constructors[constructor.name] = (template, constructor)
        for index, selector in enumerate(constructor.selectors):
            if selector and selector not in signature.selectors:
                signature.selectors[selector] = (template, constructor, index)


def _constructor(
    signature: Signature, node: Node, parameters: dict[str, Sort]
) -> ConstructorTemplate:
    if not node.is_list:
        return ConstructorTemplate(node.text, (), ())
    for item in node.items[1:]:
        if len(item.items) != 2 or item.items[0].is_list:
            raise signature.source.error("(selector sort) was expected", item)
    if not node.head:
        raise signature.source.error("a constructor was expected", node)
    selectors = tuple(item.items[0].text for item in node.items[1:])
    fields = tuple(signature.sort(item.items[1], parameters) for item in node.items[1:])
    return ConstructorTemplate(node.head, selectors, fields)


def _refuse_twice(signature: Signature, name: str, node: Node) -> None:
    if name in signature.constructors or name in signature.functions:
        raise signature.source.error(f"{name} is there already", node)


def _add_function(signature: Signature, head: Node, body: Node | None, node: Node) -> None:
    """`head` is (name (parameters) result), or (name (par (a) ((parameters) result)))."""
    name = head.items[0] if head.items else head
    type_parameters: tuple[str, ...] = ()
    rest = head.items[1:]
    if len(rest) == 1:
        type_parameters, inner = _par(signature, rest[0])
        rest = inner[0].items
    if name.is_list or len(rest) != 2:
        raise signature.source.error("a name, parameters and a result were expected", node)
    scope = generic(type_parameters)
    parameters = []
    for item in rest[0].items:
        is_typed = item.is_list and len(item.items) == 2 and not item.items[0].is_list
        if body is not None and not is_typed:
            raise signature.source.error("(parameter sort) was expected", item)
        of = item.items[1] if body is not None else item
        parameters.append((item.head if body is not None else "", signature.sort(of, scope)))
    _refuse_twice(signature, name.text, node)
    result = signature.sort(rest[1], scope)
    signature.functions[name.text] = FunctionTemplate(
        name.text, type_parameters, tuple(parameters), result, body, node
    )


def _define(signature: Signature, node: Node) -> None:
    """`(define-fun f (params) result body)`, in TIP `f (par (a) ((params) result)) body`, and
    SMT-LIB's `f (par (a) ((params) result body))`."""
    _, name, *rest = node.items
    if len(rest) > 1 or not rest:
        *head, body = node.items[1:]
        _add_function(signature, Node("", tuple(head), node.offset, True), body, node)
        return
    parameters, inner = _par(signature, rest[0])
    if not parameters or len(inner[0].items) != 3:
        raise signature.source.error("a name, parameters, a result and a body expected", node)
    arguments, result, body = inner[0].items
    typed = Node("", (arguments, result), node.offset, True)
    par = Node("", (*rest[0].items[:2], typed), node.offset, True)
    _add_function(signature, Node("", (name, par), node.offset, True), body, node)


def _define_functions(signature: Signature, node: Node) -> None:
    heads, bodies = node.items[1:]
    if len(heads.items) != len(bodies.items):
        raise signature.source.error("as many bodies as functions were expected", node)
    for head, body in zip(heads.items, bodies.items, strict=True):
        _add_function(signature, head, body, head)


def _declare_function(signature: Signature, node: Node) -> None:
    head = Node("", node.items[1:], node.offset, True)
    _add_function(signature, head, None, node)


def _declare_total(signature: Signature, node: Node) -> None:
    _declare_function(signature, node)
    signature.total.append(node.items[1].text)


def _equation(signature: Signature, node: Node) -> None:
    signature.equations.append(node)


def _declare_constant(signature: Signature, node: Node) -> None:
    """`(declare-const c sort)`, and TIP's `(declare-const c (par (a) sort))`."""
    _, name, said = node.items
    parameters, inner = _par(signature, said)
    typed = (Node("", (), node.offset, True), *inner)
    if parameters:
        typed = (
            Node("", (*said.items[:2], Node("", typed, node.offset, True)), said.offset, True),
        )
    _add_function(signature, Node("", (name, *typed), node.offset, True), None, node)


def _assert(signature: Signature, node: Node) -> None:
    signature.assertions.append(node.items[-1])


def _goal(signature: Signature, node: Node) -> None:
    """TIP's `(prove formula)` and its older `(assert-not (a) formula)`, with parameters or not."""
    formula = node.items[-1]
    if len(node.items) == 3:
        word = Node("par", (), node.offset)
        formula = Node("", (word, *node.items[1:]), node.offset, True)
    _add_goal(signature, formula)


def _named_goal(signature: Signature, node: Node) -> None:
    _, name, formula = node.items
    if name.text in signature.goals:
        raise signature.source.error("a goal of this name is there already", name)
    signature.goals[name.text] = formula


def _add_goal(signature: Signature, formula: Node) -> None:
    """Under a name that no other has: who names a goal cannot write a dash."""
    number = len(signature.goals) + 1
    signature.goals[f"goal-{number}" if number > 1 else "goal"] = formula


def _define_constant(signature: Signature, node: Node) -> None:
    none = Node("", (), node.offset, True)
    head = Node("", (node.items[1], none, node.items[2]), node.offset, True)
    _add_function(signature, head, node.items[3], node)


_COMMANDS: dict[str, tuple[tuple[int, ...], Callable[[Signature, Node], None]]] = {
    "declare-sort": ((1, 2), _declare_sort),
    "declare-datatype": ((2,), _declare_datatype),
    "declare-datatypes": ((2,), _declare_datatypes),
    "declare-fun": ((2, 3), _declare_function),
    "declare-const": ((2,), _declare_constant),
    "define-const": ((3,), _define_constant),
    "define-fun": ((2, 3, 4), _define),
    "define-fun-rec": ((2, 3, 4), _define),
    "define-funs-rec": ((2,), _define_functions),
    TOTAL: ((3,), _declare_total),
    EQUATION: ((2,), _equation),
    NAMED: ((2,), _named_goal),
    "assert": ((1,), _assert),
    "assert-not": ((1, 2), _goal),
    "prove": ((1,), _goal),
}
