"""Definitions that several tests speak of, in the prover's own language; a test adds the sorts."""

PLUS = """fun plus(nat, nat): nat
plus(zero, y) = y
plus(succ(x), y) = succ(plus(x, y))
"""
TIMES = """fun times(nat, nat): nat
times(zero, y) = zero
times(succ(x), y) = plus(y, times(x, y))
"""
APPEND = """fun append(list, list): list
append(nil, ys) = ys
append(cons(x, xs), ys) = cons(x, append(xs, ys))
"""
REVERSE = """fun reverse(list): list
reverse(nil) = nil
reverse(cons(x, xs)) = append(reverse(xs), cons(x, nil))
"""
TURN = """fun turn(list, list): list
turn(nil, ys) = ys
turn(cons(x, xs), ys) = turn(xs, cons(x, ys))
"""
LENGTH = """fun length(list): nat
length(nil) = zero
length(cons(x, xs)) = succ(length(xs))
"""
