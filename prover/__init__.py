"""Proofs that two functional programs are equal, replayed by an independent checker.

The trust base is what must be right for a theorem to be one: `terms` and `builtins`, `program`,
`syntax` (which reads a problem), `checks` (which refuses definitions that define nothing) and
`checker` (which replays a certificate). `evaluator` computes ground terms, for tests and for
refutations. None of it imports what searches for proofs.
"""
