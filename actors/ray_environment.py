"""What Ray reads from the environment once, when it is imported."""

from __future__ import annotations

from cluster.wire.serving import MAX_MESSAGE_BYTES

# For a Ray that never leaves this machine; `deploy/serve.yaml` says what a cluster needs.
LOCAL = {
    # Its processes listen on 127.0.0.1; else Ray takes the address of another interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Every process of this Ray, and no other, knows the token.
    "RAY_AUTH_MODE": "token",
    # The proxy takes messages of 2 GiB unless it is told.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES),
}
