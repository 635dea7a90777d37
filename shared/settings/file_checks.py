"""Checks what settings and the environment name, so that a missing file or a bad proxy is an error at the start."""

import ssl
from pathlib import Path

from shared.errors import SettingsError
from shared.settings.environment_network import find_ca_bundle, read_environment
from shared.settings.schema import PoolSettings, Settings


def check_files(settings: Settings) -> None:
    """Raises SettingsError, which names the setting, unless all certificates, token files and proxies can be used."""
    check_ca_bundles(settings)
    for pool in settings.pools:
        check_client_certificate(pool)
        read_token_file(pool)
        for url in filter(None, (pool.upstream_url, pool.token_url, pool.revocation_url, pool.issuer)):
            if not pool.proxy:
                read_environment(url)


def check_ca_bundles(settings: Settings) -> None:
    """Raises SettingsError unless every CA bundle, a file or a directory of certificates, can be loaded."""
    for pool in settings.pools:
        if pool.ca_bundle:
            check_ca_bundle(f"pool {pool.name}: FARM_CA_BUNDLE", Path(pool.ca_bundle))
        elif any(url.startswith("https:") for url in (pool.upstream_url, pool.token_url, pool.revocation_url)):
            name, path = find_ca_bundle()
            if name:
                check_ca_bundle(name, Path(path))


def check_ca_bundle(name: str, path: Path) -> None:
    """Raises SettingsError, with the setting's name, unless the certificates can be loaded."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(capath=path) if path.is_dir() else context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{name}: {path}: {reason}") from None


def check_client_certificate(pool: PoolSettings) -> None:
    """Raises SettingsError unless the pool's client certificate can be loaded, and the key is its own."""
    if pool.client_key and not pool.client_cert:
        raise SettingsError(f"pool {pool.name}: FARM_CLIENT_KEY is of no use without FARM_CLIENT_CERT")
    if not pool.client_certificate:
        return
    try:
        load_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), pool.client_certificate)
    except (OSError, ValueError) as error:
        files = " with ".join(dict.fromkeys(pool.client_certificate))
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"pool {pool.name}: FARM_CLIENT_CERT: {files}: {reason}") from None


def load_client_certificate(context: ssl.SSLContext, files: tuple[str, str]) -> None:
    """Loads certificate and private key; an encrypted one is refused instead of asking for its password.

    Raises OSError or ValueError.
    """
    context.load_cert_chain(*files, password=refuse_password)


def refuse_password() -> str:
    """ssl: asks for the password of an encrypted key, else OpenSSL would ask on the terminal."""
    raise ValueError("the private key is encrypted; `openssl pkey` decrypts it")


def read_token_file(pool: PoolSettings) -> list[str]:
    """Lines of the pool's file of refresh tokens; [] when it has none. Raises SettingsError."""
    if not pool.refresh_tokens_file:
        return []
    try:
        return Path(pool.refresh_tokens_file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"pool {pool.name}: FARM_REFRESH_TOKENS_FILE: {error}") from None
