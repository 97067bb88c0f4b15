"""The laws of `keys`, `tree`, `eviction` and `recency` and the knowledge cache."""

from __future__ import annotations

from itertools import takewhile

from hypothesis import strategies as st

from cluster.knowledge.device_tier import subtree
from cluster.knowledge.ghosts import History
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Admission, Node, Placement
from cluster.request import SegmentSource
from tests.laws.cases import Case
from tests.laws.shelf import Path, Shelf, recently

NAMES = "abcde"
SEGMENTS = {"placement": Placement.SEGMENT, "admission": Admission.ALL, "host_blocks": 512}

names = st.sampled_from(NAMES)
paths = st.lists(names, max_size=4).map(tuple)
trees = st.lists(paths, max_size=5)
sets = st.sets(names)
lists = st.lists(names, unique=True).map(tuple)


# keys: each is told by the path that leads to it

BELOW = {"below": lambda above, document: (*above, document)}


def prefix(data: st.DataObject) -> Case:
    p, q = data.draw(paths), data.draw(paths)
    shelf, whole = Shelf(), p + q
    ends = [whole[: end + 1] for end in range(len(whole))]
    told = {shelf.chain(path)[-1]: path for path in ends}
    assert len(told) == len(ends)
    left, right = shelf.chain(whole)[: len(p)], shelf.chain(p)
    values = {"above": (), "p": p, "q": q}
    return Case(values, tuple(map(told.get, left)), tuple(map(told.get, right)), BELOW)


def as_many(data: st.DataObject) -> Case:
    p = data.draw(paths)
    return Case({"above": (), "p": p}, len(Shelf().chain(p)), len(p), BELOW)


# tree


def found(data: st.DataObject) -> Case:
    p, shelf = data.draw(paths), Shelf(data.draw(trees))
    values = {"p": p, "t": shelf.forest}
    shelf.insert(p)
    return Case(values, shelf.lookup(p), p)


def inserted_once(data: st.DataObject) -> Case:
    p, shelf = data.draw(paths), Shelf(data.draw(trees))
    values = {"p": p, "t": shelf.forest}
    shelf.insert(p)
    once = shelf.forest
    shelf.insert(p)
    return Case(values, shelf.forest, once)


def reused_or_computed(data: st.DataObject) -> Case:
    p, shelf = data.draw(paths), Shelf(data.draw(trees))
    return Case({"p": p, "t": shelf.forest}, shelf.lookup(p) + shelf.fresh(p), p)


def grown(data: st.DataObject) -> Case:
    p, shelf = data.draw(paths), Shelf(data.draw(trees))
    values, right = {"p": p, "t": shelf.forest}, shelf.size + len(shelf.fresh(p))
    shelf.insert(p)
    return Case(values, shelf.size, right)


def nothing_lost(data: st.DataObject) -> Case:
    p, q = data.draw(paths), data.draw(paths)
    shelf = Shelf([*data.draw(trees), q])
    values = {"p": p, "q": q, "t": shelf.forest}
    shelf.insert(p)
    return Case(values, shelf.lookup(q), q)


def guessed_right(data: st.DataObject) -> Case:
    guess, final = data.draw(paths), data.draw(paths)
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(guess, final, strict=False))
    right = tuple(name for name, _ in pairs)
    return Case({"p": guess, "q": final}, Shelf([guess]).lookup(final), right)


def planted(data: st.DataObject) -> Case:
    shelf = Shelf(data.draw(trees))
    root = shelf.cache.tree.root
    ds = tuple(data.draw(st.permutations("uvw")))
    values, right = {"ds": ds, "t": shelf.forest}, ds + shelf.flatten()
    for name in reversed(ds):
        key = NodeKey(name.encode() * 16)
        shelf.cache.tree.attach(root, Node(key, root, SegmentSource("c", name), 1, History()))
    return Case(values, shelf.flatten(), right)


def one_path(data: st.DataObject) -> Case:
    p = data.draw(paths)
    return Case({"p": p}, Shelf([p]).flatten(), p)


def flattened(data: st.DataObject) -> Case:
    shelf = Shelf(data.draw(trees))
    return Case({"t": shelf.forest}, shelf.flatten(), shelf.flatten())


def counted(data: st.DataObject) -> Case:
    shelf = Shelf(data.draw(trees))
    return Case({"t": shelf.forest}, len(list(subtree(shelf.cache.tree.root))) - 1, shelf.size)


# eviction


def in_order(data: st.DataObject) -> Case:
    shelf, wanted = Shelf(data.draw(trees), **SEGMENTS), data.draw(sets)
    values = {"t": shelf.forest}
    right = tuple(name for name in shelf.on_device if name in wanted)
    shelf.evict(wanted)
    return Case(values, shelf.on_device, right, {"wanted": wanted.__contains__})


def kept_once(data: st.DataObject) -> Case:
    ds, wanted = data.draw(lists), data.draw(sets)
    shelf = Shelf([(name,) for name in reversed(ds)], **SEGMENTS)
    shelf.evict(wanted)
    once = shelf.on_device
    shelf.evict(wanted)
    return Case({"ds": ds}, shelf.on_device, once, {"wanted": wanted.__contains__})


def evicted_once(data: st.DataObject) -> Case:
    shelf, wanted = Shelf(data.draw(trees), **SEGMENTS), data.draw(sets)
    values = {"t": shelf.forest_on_device}
    shelf.evict(wanted)
    once = shelf.forest_on_device
    shelf.evict(wanted)
    return Case(values, shelf.forest_on_device, once, {"wanted": wanted.__contains__})


def pruned_once(data: st.DataObject) -> Case:
    shelf, wanted = Shelf(data.draw(trees)), data.draw(sets)
    values = {"t": shelf.forest}
    shelf.prune(wanted)
    once = shelf.forest
    shelf.prune(wanted)
    return Case(values, shelf.forest, once, {"wanted": wanted.__contains__})


def _is_found(shelf: Shelf, path: Path) -> bool:
    return shelf.lookup(path) == path


def found_before(data: st.DataObject) -> Case:
    p = data.draw(paths)
    shelf, wanted = Shelf([*data.draw(trees), p]), data.draw(sets) | set(p)
    values, before = {"p": p, "t": shelf.forest}, _is_found(shelf, p)
    shelf.prune(wanted)
    assert _is_found(shelf, p)
    return Case(values, before, True, {"wanted": wanted.__contains__})


def still_found(data: st.DataObject) -> Case:
    p, shelf = data.draw(paths), Shelf(data.draw(trees))
    wanted = data.draw(sets) | set(p)
    values, before = {"p": p, "t": shelf.forest}, _is_found(shelf, p)
    shelf.prune(wanted)
    return Case(values, _is_found(shelf, p), before, {"wanted": wanted.__contains__})


# recency


def order_kept(data: st.DataObject) -> Case:
    d, xs = data.draw(names), data.draw(lists)
    left, right = recently([*xs, d]), recently(xs)
    left.drop(d)
    right.drop(d)
    return Case({"d": d, "xs": xs}, left.leave(), right.leave())


def used_again(data: st.DataObject) -> Case:
    d, xs = data.draw(names), data.draw(lists)
    left, right = recently([*xs, d, d]), recently([*xs, d])
    return Case({"d": d, "xs": xs}, left.leave(), right.leave())


def last_use(data: st.DataObject) -> Case:
    d, e, xs = data.draw(names), data.draw(names), data.draw(lists)
    left, right = recently([*xs, d, e, d]), recently([*xs, e, d])
    return Case({"d": d, "e": e, "xs": xs}, left.leave(), right.leave())


def left(data: st.DataObject) -> Case:
    d, e = data.draw(st.permutations(NAMES))[:2]
    xs = data.draw(lists)
    after, before = recently([*xs, d]), recently(xs)
    after.drop(e)
    before.drop(e)
    before.insert((d,))
    return Case({"d": d, "e": e, "xs": xs}, after.leave(), before.leave())
