"""Credentials: token files and proxies with a token; how long they last, and what to type."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from coffea_dirac.dirac.credentials import find_credential, read_credential
from coffea_dirac.errors import CredentialError

HOUR_S = 3600.0


def token(**claims: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'EdDSA'})}.{part(claims)}.c2lnbmF0dXJl"


def content(life_s: float, refresh_s: float | None = None, *, fixed: bool = False) -> dict[str, Any]:
    now = time.time()
    access = token(preferred_username="jdoe", vo="gridpp", dirac_group="gridpp_user", exp=now + life_s)
    refresh = token(exp=now + refresh_s, legacy_exchange=fixed) if refresh_s is not None else None
    return {"access_token": access, "refresh_token": refresh, "expires_on": int(now + life_s), "expires_in": life_s}


def written(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def proxy(life_s: float) -> str:
    body = base64.b64encode(json.dumps(content(60, life_s, fixed=True)).encode()).decode()
    return (
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
        f"-----BEGIN DIRACX-----\n{body}\n-----END DIRACX-----\n"
    )


def test_token_that_is_renewed_with_each_use_lasts_as_long_as_it_is_used(tmp_path: Path) -> None:
    found = read_credential(written(tmp_path / "c.json", json.dumps(content(60, HOUR_S))))
    assert (found.user, found.vo, found.group, found.is_renewed) == ("jdoe", "gridpp", "gridpp_user", True)
    found.check(100 * HOUR_S)


def test_token_without_renewal_must_outlast_the_jobs(tmp_path: Path) -> None:
    found = read_credential(written(tmp_path / "c.json", json.dumps(content(HOUR_S))))
    found.check(HOUR_S / 2)
    with pytest.raises(
        CredentialError, match=r"in 60 minutes, .*120 minutes do. Type: dirac login gridpp --group gridpp_user"
    ):
        found.check(2 * HOUR_S)


def test_expired_token_names_the_command(tmp_path: Path) -> None:
    found = read_credential(written(tmp_path / "c.json", json.dumps(content(-60, -1))))
    with pytest.raises(CredentialError, match=r"has expired. Type: dirac login gridpp --group gridpp_user$"):
        found.check(0)


def test_proxy_of_dirac_carries_a_token_and_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    found = read_credential(written(tmp_path / "x509up", proxy(HOUR_S)))
    assert (found.is_proxy, found.is_renewed, found.user) == (True, False, "jdoe")
    assert set(found.content) == {"access_token", "refresh_token", "expires_on"}
    with pytest.raises(CredentialError, match=r"Type: dirac-proxy-init --group gridpp_user --valid 3:00"):
        found.check(2 * HOUR_S)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"access_token": "abc"}', "-----BEGIN CERTIFICATE-----\nMIIB\n"])
def test_file_without_a_token_is_an_error_that_does_not_show_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(CredentialError, match="carries no DiracX token"):
        read_credential(written(tmp_path / "c", text))


def test_nothing_of_a_token_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "c.json", json.dumps(content(-60)))
    found = read_credential(path)
    with pytest.raises(CredentialError) as caught:
        found.check(0)
    secret = json.loads(path.read_text())["access_token"][:30]
    assert secret not in repr(found) + str(found) + str(caught.value)


def test_credential_is_looked_for_where_dirac_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DIRACX_CREDENTIALS_PATH", raising=False)
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "proxy"))
    with pytest.raises(CredentialError, match="Type: dirac login VO --group GROUP"):
        find_credential()
    written(tmp_path / "proxy", proxy(HOUR_S))
    assert find_credential().is_proxy
    (tmp_path / ".cache/diracx").mkdir(parents=True)
    written(tmp_path / ".cache/diracx/credentials.json", json.dumps(content(60, HOUR_S)))
    assert not find_credential().is_proxy
    monkeypatch.setenv("DIRACX_CREDENTIALS_PATH", str(tmp_path / "proxy"))
    assert find_credential().is_proxy
