"""Settings of the server."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class ServerSettings(Struct, frozen=True, kw_only=True):
    """The address, access, TLS and logging of the server."""

    host: Annotated[
        str | None,
        Meta(description="Address to bind; by default loopback, or all with API keys."),
    ] = None
    port: Annotated[int, Meta(description="Port to bind; 0 selects a free one.", ge=0, le=65535)] = 8000
    api_keys: Annotated[
        tuple[str, ...], Meta(description="Accepted API keys or their SHA-256 hashes (see `tympan key`).")
    ] = ()
    api_keys_file: Annotated[
        str | None,
        Meta(description="File of further API keys or hashes, one per line. It is read again when it changes."),
    ] = None
    token_secret: Annotated[
        str,
        Meta(
            description="Secret of at least 32 bytes that signs short-lived tokens; use the same one on all servers of "
            "a fleet (default: random)."
        ),
    ] = ""
    token_secret_file: Annotated[
        str | None, Meta(description="File that contains the token secret, in place of token_secret.")
    ] = None
    accept_foreign_tokens: Annotated[
        bool,
        Meta(
            description="Accept tokens of keys that this server does not have, for fleets with one token secret and "
            "different keys; they then outlive the removal of their key."
        ),
    ] = False
    metrics_keys: Annotated[
        tuple[str, ...],
        Meta(description="Keys or hashes for /metrics. It is refused without them if API keys are required."),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins of web pages that may connect, or *. An origin is such as https://app.example; by "
            "default all may connect if API keys are required, else only the server's own page."
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Host names of a server without API keys, or *. IP addresses and localhost are always allowed."
        ),
    ] = ()
    root_path: Annotated[
        str,
        Meta(
            description="Path prefix under which a proxy serves this server, such as /stt; the proxy may remove it or "
            "not.",
            pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        ),
    ] = ""
    tls_certificate: Annotated[
        str | None, Meta(description="Certificate file (PEM, with the chain) to serve TLS with.")
    ] = None
    tls_key: Annotated[
        str | None, Meta(description="Private key file (PEM). It is not needed if the certificate file contains it.")
    ] = None
    wyoming_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(description="Port for Wyoming clients such as Home Assistant, which send no key; 0 selects a free one."),
    ] = None
    wyoming_host: Annotated[str, Meta(description="Address to bind for Wyoming clients.")] = "127.0.0.1"
    strict_model: Annotated[
        bool,
        Meta(description="Refuse clients that request another model than the loaded one."),
    ] = False
    fronts: Annotated[
        int,
        Meta(description="Processes that serve clients; with more than one, a further process supervises them.", ge=1),
    ] = 1
    log_level: Annotated[
        str,
        Meta(
            description="Lowest level that is logged: debug, info, warning or error.",
            pattern="^(debug|info|warning|error)$",
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Meta(description="Format of log lines: text or json. json is one object per line.", pattern="^(text|json)$"),
    ] = "text"

    @property
    def bind_host(self) -> str:
        """The address to bind."""
        return self.host or ("0.0.0.0" if self.asks_for_keys else "127.0.0.1")

    @property
    def asks_for_keys(self) -> bool:
        """Whether clients need an API key."""
        return bool(self.api_keys or self.api_keys_file)
