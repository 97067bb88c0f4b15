"""Who may come in: keys, and without keys this machine alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grpc
import httpx
import pytest

from actors.gateway.auth import (
    LOCAL,
    ApiKey,
    Caller,
    Keyring,
    host_of_grpc_peer,
    is_loopback,
    load_keyring,
    require_keys_in_public,
)
from cluster.errors import InvalidArgument, PermissionDenied, Unauthenticated
from cluster.wire.status import from_rpc_error
from protos.thoth.v1 import gateway_pb2, gateway_pb2_grpc
from tests.gateway.scripted import config_of, scripted_cluster

KEY = "thoth-0123456789"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


def keys_file(folder: Path, text: str) -> Path:
    path = folder / "keys"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_keys_file_may_have_comments_and_blank_lines(tmp_path: Path) -> None:
    keyring = load_keyring(keys_file(tmp_path, f"# ours\n\n  alice:{DIGEST}  \n"))
    assert keyring.authenticate(Caller("203.0.113.5", f"Bearer {KEY}")) == "alice"


@pytest.mark.parametrize(
    "line",
    [f"alice {DIGEST}", f"alice:{DIGEST[:-1]}", f"alice:{DIGEST.upper()}", f":{DIGEST}", KEY],
)
def test_a_malformed_line_is_named_by_number_and_not_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        load_keyring(keys_file(tmp_path, f"bob:{DIGEST}\n{line}\n"))
    assert "line 2" in refused.value.message
    assert line not in refused.value.message
    assert refused.value.field == "gateway.api_keys_file"


def test_a_keys_file_that_is_missing_empty_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        load_keyring(tmp_path / "absent")
    with pytest.raises(InvalidArgument, match="no API key"):
        load_keyring(keys_file(tmp_path, "# nobody\n"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgument, match="UTF-8"):
        load_keyring(tmp_path / "binary")


@pytest.mark.parametrize("said", ["", KEY, f"Basic {KEY}", "Bearer ", "Bearer wrong", "Bearer é"])
def test_with_keys_anything_but_a_good_key_is_refused_even_from_here(said: str) -> None:
    keyring = Keyring((ApiKey("alice", bytes.fromhex(DIGEST)),))
    with pytest.raises(Unauthenticated):
        keyring.authenticate(Caller("127.0.0.1", said))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", ""])
def test_without_keys_this_machine_is_served(host: str) -> None:
    assert Keyring().authenticate(Caller(host)) == LOCAL


@pytest.mark.parametrize("host", ["192.0.2.2", "2001:db8::1", "::ffff:192.0.2.2", "unknown"])
def test_without_keys_nobody_else_is_served(host: str) -> None:
    with pytest.raises(PermissionDenied, match=r"gateway\.api_keys_file"):
        Keyring().authenticate(Caller(host, f"Bearer {KEY}"))


def test_without_keys_scripts_of_other_sites_are_not_served() -> None:
    Keyring().authenticate(Caller("127.0.0.1", origin="http://localhost:3000"))
    for origin in ("https://evil.example", "null"):
        with pytest.raises(PermissionDenied):
            Keyring().authenticate(Caller("127.0.0.1", origin=origin))


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:4711", "127.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[2001:db8::1]:4711", "2001:db8::1"),
        ("unix:/run/thoth.sock", ""),
        ("unix-abstract:thoth", ""),
        ("vsock:1:2", "vsock:1:2"),
        ("", "unknown"),
    ],
)
def test_the_address_is_read_from_what_grpc_calls_a_peer(peer: str, host: str) -> None:
    assert host_of_grpc_peer(peer) == host


def test_a_public_bind_needs_keys() -> None:
    require_keys_in_public("127.0.0.1", Keyring())
    require_keys_in_public("0.0.0.0", Keyring((ApiKey("alice", b""),)))
    for host in ("0.0.0.0", "::", "192.0.2.2", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(InvalidArgument, match="api_keys_file"):
            require_keys_in_public(host, Keyring())


async def test_both_doors_ask_for_the_key_and_health_does_not(
    tiny_folder: Path, tmp_path: Path
) -> None:
    keys = keys_file(tmp_path, f"alice:{DIGEST}\n")
    config = config_of(tiny_folder, tmp_path, api_keys_file=keys)
    good = {"authorization": f"Bearer {KEY}"}
    async with (
        scripted_cluster(config) as cluster,
        httpx.AsyncClient(base_url=cluster.http) as http,
        grpc.aio.insecure_channel(cluster.grpc) as channel,
    ):
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/ready")).status_code == 200
        for path in ("/v1/models", "/metrics", "/version", "/v1/collections"):
            refused = await http.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["type"] == "authentication_error"
        assert (await http.get("/v1/models", headers=good)).status_code == 200
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as stranger:
            await stub.ListModels(gateway_pb2.ListModelsRequest())
        assert isinstance(from_rpc_error(stranger.value), Unauthenticated)
        found = await stub.ListModels(gateway_pb2.ListModelsRequest(), metadata=tuple(good.items()))
        assert [model.id for model in found.models] == ["tiny"]
