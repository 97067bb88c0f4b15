"""The wire: the only floor that knows protobuf. Dataclasses on one side, `thoth.v1` on the
other."""
