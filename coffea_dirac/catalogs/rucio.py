"""What Rucio knows of datasets and their replicas.  The only file that imports rucio.

It is asked in bulk: one call for a dataset, paged by the datasets of a container; what is too much for the server is
asked for in halves.  Rucio drops a file without a usable replica in silence, so files are counted too.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import requests
from rucio.client import Client
from rucio.common import exception as rucio_errors

from coffea_dirac.errors import CatalogError, ConfigurationError, CredentialError
from coffea_dirac.interfaces import LogicalFile, Replica
from coffea_dirac.redact import without_secrets
from coffea_dirac.tokens import bearer_token, claims, trouble

TIMEOUT_S = 60
AT_ONCE = 500
"""So many files are asked for by name in one call, if their dataset cannot be asked for as a whole."""
PUBLISHED_AT_ONCE = 200
TRACE_TIMEOUT_S = 10
# What servers and the proxies before them answer to a question that takes too long.
_TOO_MUCH = ("502", "503", "504", "timed out", "Connection broken", "Response ended prematurely")
_NO_LOGIN = (
    rucio_errors.CannotAuthenticate,
    rucio_errors.MissingClientParameter,
    rucio_errors.NoAuthInformation,
    rucio_errors.AccessDenied,
    rucio_errors.IdentityError,
)
_lock = threading.Lock()
T = TypeVar("T")


class _Client(Client):  # type: ignore[misc]
    """Rucio's client, which never prompts, and keeps a token for each server and account."""

    REQUEST_RETRIES = 1

    def _get_auth_tokens(self) -> tuple[None, str, str, str]:
        # Its own place is that of the account only: a test server's token would go to the real one.
        who = hashlib.sha256(f"{self.host} {self.auth_host} {self.account} {self.auth_type}".encode()).hexdigest()[:32]
        folder = Path(platformdirs.user_cache_dir("coffea_dirac")) / "rucio" / who
        return None, str(folder / "expires"), str(folder / "token"), str(folder)

    def _BaseClient__get_token_oidc(self) -> bool:  # noqa: N802
        # It would open a browser and wait for what is typed: on a worker for ever.
        found = claims(bearer_token() or "")
        raise rucio_errors.CannotAuthenticate(
            f"the server does not take the token of {found.get('sub')} by {found.get('iss')} for {found.get('aud')}"
        )


@dataclass(frozen=True)
class RucioCatalog:
    """The replicas that a Rucio server knows.

    Parameters
    ----------
    url : str, optional
        The server; by default that of ``rucio.cfg``.
    account : str, optional
        By default that of ``rucio.cfg`` or ``RUCIO_ACCOUNT``.
    rse_expression : str, optional
        Which storages to consider.
    schemes : tuple of str
        Which protocols to consider.
    auth_type : str, optional
        ``oidc`` (a token, found as WLCG says), ``x509_proxy``, ``x509`` or ``userpass``; by default that of
        ``rucio.cfg`` or ``RUCIO_AUTH_TYPE``.
    credentials : mapping, optional
        What Rucio's client calls ``creds``, for example ``{"username": .., "password": ..}``.
    audience : str, optional
        For whom a token has to be; known, it is checked here.
    ca_cert : str, optional
        The file with the server's authorities.
    site_attribute : str
        The attribute of an RSE that names its site.
    traces : bool
        Tell the server once for each dataset and run that it is read, in the background.
    declare : bool
        Declare replicas suspicious that size or checksum have proven damaged, in the background.

    Examples
    --------
    >>> RucioCatalog("https://rucio.example.org", "jdoe").account
    'jdoe'
    """

    url: str | None = None
    account: str | None = None
    rse_expression: str | None = None
    schemes: tuple[str, ...] = ("root", "roots", "https", "davs")
    auth_type: str | None = None
    credentials: Mapping[str, str] | None = field(default=None, repr=False)
    audience: str | None = None
    ca_cert: str | None = None
    site_attribute: str = "site"
    traces: bool = True
    declare: bool = True
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def locate(self, dids: Sequence[str]) -> dict[str, tuple[LogicalFile, ...]]:
        """Return the files of each dataset, container or file did with their usable replicas.

        Raises
        ------
        ConfigurationError
            A did has no scope, or no storage fits `rse_expression`.
        CredentialError
            The server takes no credential of yours.
        CatalogError
            The server cannot be asked.
        """
        pairs = {did: _split(did) for did in dict.fromkeys(dids)}
        return self._asked(lambda: self._located(pairs))

    def sites(self, rses: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return which of some RSEs are at each site, as their attribute `site_attribute` says.

        Raises
        ------
        CredentialError, CatalogError
            As in `locate`.
        """
        found: dict[str, tuple[str, ...]] = {}
        for rse in sorted(rses):
            attributes = self._asked(lambda rse=rse: self._client().list_rse_attributes(rse))  # type: ignore[misc]
            if site := attributes.get(self.site_attribute):
                found[str(site)] = (*found.get(str(site), ()), rse)
        return found

    def touch(self, did: str) -> None:
        """Tell the server that a dataset is read, or each dataset of a container.

        Raises
        ------
        CredentialError, CatalogError
            As in `locate`.
        """
        scope, name = _split(did)
        if self.traces:
            self._asked(lambda: self._touch(scope, name))

    def _touch(self, scope: str, name: str) -> None:
        client = self._client()
        kind = self._kinds([(scope, name)])[scope, name]["did_type"]
        for dataset in self._datasets(scope, name, kind):
            what = {"scope": scope, "filename": name} if kind == "FILE" else {}
            what = what or {"datasetScope": dataset["scope"], "dataset": dataset["name"]}
            # Rucio's own client would wait for ever, and not look whom it tells.
            answer = requests.post(
                f"{client.host}/traces/",
                json={"eventType": "touch", "clientState": "DONE", "account": client.account, **what},
                timeout=TRACE_TIMEOUT_S,
                verify=client.ca_cert or True,
            )
            answer.raise_for_status()

    def suspect(self, pfn: str, why: str) -> None:
        """Declare a replica suspicious, which every account may do; what becomes of it the experiment decides.

        Raises
        ------
        CredentialError, CatalogError
            As in `locate`.
        """
        if self.declare:
            self._asked(lambda: self._client().declare_suspicious_file_replicas([pfn], f"coffea_dirac: {why}"))

    def publish(self, did: str, files: Sequence[LogicalFile], rse: str, *, lifetime_s: float) -> None:
        """Register files with their first replica in a dataset, which is made, or lives on, for so long.

        Raises
        ------
        CredentialError, CatalogError
            As in `locate`.
        """
        self._asked(lambda: self._publish(*_split(did), files, rse, int(lifetime_s)))

    def _publish(self, scope: str, name: str, files: Sequence[LogicalFile], rse: str, lifetime_s: int) -> None:
        client = self._client()
        if (scope, name) in self._kinds([(scope, name)]):
            # Of the dataset: an ordinary account may not change how long its rules live.
            client.set_metadata(scope, name, "lifetime", lifetime_s)
        else:
            rule = {"account": client.account, "copies": 1, "rse_expression": rse, "grouping": "DATASET"}
            client.add_dataset(scope, name, rules=[rule], lifetime=lifetime_s)
        for at in range(0, len(files), PUBLISHED_AT_ONCE):
            part = [
                {
                    **dict(zip(("scope", "name"), _split(file.lfn), strict=True)),
                    "bytes": file.size_bytes,
                    "adler32": file.adler32,
                    "pfn": file.replicas[0].pfn,
                }
                for file in files[at : at + PUBLISHED_AT_ONCE]
            ]
            client.add_files_to_dataset(scope, name, part, rse=rse)

    def _located(self, pairs: Mapping[str, tuple[str, str]]) -> dict[str, tuple[LogicalFile, ...]]:
        kinds = self._kinds(list(pairs.values()))
        single = {did: pair for did, pair in pairs.items() if kinds.get(pair, {}).get("did_type") == "FILE"}
        files = {file.lfn: file for file in self._some_files([kinds[pair] for pair in single.values()])}
        found: dict[str, tuple[LogicalFile, ...]] = {}
        for did, pair in pairs.items():
            if did in single:
                found[did] = (files[did],)
            else:
                found[did] = tuple(self._files(*pair, kinds[pair]["did_type"])) if pair in kinds else ()
        return found

    def _kinds(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Return what the server knows of dids, many in one call; unknown ones are left out."""
        found = {}
        for at in range(0, len(pairs), AT_ONCE):
            asked = [{"scope": scope, "name": name} for scope, name in pairs[at : at + AT_ONCE]]
            known = self._client().get_metadata_bulk(asked)
            found.update({(facts["scope"], facts["name"]): facts for facts in known})
        return found

    def _files(self, scope: str, name: str, kind: str) -> Iterator[LogicalFile]:
        """Yield the files of a dataset, or of all datasets of a container, however deep."""
        seen: set[str] = set()
        for dataset in self._datasets(scope, name, kind):
            for file in self._files_of(dataset):
                if file.lfn not in seen:
                    seen.add(file.lfn)
                    yield file

    def _files_of(self, dataset: dict[str, str]) -> Iterator[LogicalFile]:
        """Yield the files of a dataset; all their names are asked for only if some are left out, or are too many."""
        try:
            found = list(self._listed([dataset]))
        except (rucio_errors.RucioException, requests.RequestException) as error:
            if not _is_too_much(error):
                raise
            yield from self._some_files(list(self._client().list_files(*dataset.values())))
            return
        replicas = {_lfn(facts): facts for facts in found}
        known = {lfn: _logical_file(lfn, facts) for lfn, facts in replicas.items()}
        if len(known) != self._client().get_did(*dataset.values(), dynamic_depth="FILE")["length"]:
            for facts in self._client().list_files(*dataset.values()):
                known.setdefault(_lfn(facts), _logical_file(_lfn(facts), facts))
        yield from known.values()

    def _datasets(self, scope: str, name: str, kind: str) -> Iterator[dict[str, str]]:
        if kind != "CONTAINER":
            yield {"scope": scope, "name": name}
            return
        for inner in self._client().list_content(scope, name):
            yield from self._datasets(inner["scope"], inner["name"], inner["type"])

    def _some_files(self, known: Sequence[Mapping[str, Any]], at_once: int = AT_ONCE) -> Iterator[LogicalFile]:
        """Yield files with what the server says of their replicas, in halves of what takes too long."""
        for at in range(0, len(known), at_once):
            part = known[at : at + at_once]
            try:
                found = list(self._listed([{"scope": file["scope"], "name": file["name"]} for file in part]))
            except (rucio_errors.RucioException, requests.RequestException) as error:
                if len(part) <= 1 or not _is_too_much(error):
                    raise
                yield from self._some_files(part, (len(part) + 1) // 2)
                continue
            replicas = {_lfn(facts): facts for facts in found}
            for facts in part:
                yield _logical_file(_lfn(facts), {**facts, **replicas.get(_lfn(facts), {})})

    def _listed(self, dids: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
        # By default the client is given storages in downtime too.
        found: Iterator[dict[str, Any]] = self._client().list_replicas(
            dids, schemes=list(self.schemes), ignore_availability=False, rse_expression=self.rse_expression
        )
        return found

    def _client(self) -> Any:
        if "client" not in self._kept:
            with _lock:
                self._kept["client"] = self._logged_in()
        return self._kept["client"]

    def _logged_in(self) -> Any:
        from rucio.common.config import config_get

        kind = self.auth_type or config_get("client", "auth_type", False, None)
        if kind == "oidc":
            token = bearer_token()
            self._check_token(token, self.audience or config_get("client", "oidc_audience", False, None))
        # At DEBUG the client tells headers, the password among them.
        logger = logging.getLogger(f"{__name__}.client")
        logger.setLevel(logging.CRITICAL)
        argv0 = sys.argv[0]
        try:
            return _Client(
                rucio_host=self.url,
                auth_host=self.url,
                account=self.account,
                ca_cert=self.ca_cert,
                auth_type=self.auth_type,
                creds=dict(self.credentials) if self.credentials else None,
                timeout=TIMEOUT_S,
                user_agent="coffea_dirac",
                logger=logger,
            )
        finally:
            # The client changes it.
            sys.argv[0] = argv0

    def _check_token(self, token: str | None, audience: str | None) -> None:
        if why := trouble(token):
            raise CredentialError(f"{self!r} cannot be asked: {why}")
        found = claims(token or "").get("aud")
        audiences = [found] if isinstance(found, str) else list(found or ())
        if audience and audiences and audience not in audiences:
            raise CredentialError(
                f"{self!r} cannot be asked: the token is for {', '.join(audiences)} and not for {audience}: get one "
                "with this audience"
            )

    def _asked(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except rucio_errors.InvalidRSEExpression as error:
            raise ConfigurationError(
                f"no storage fits rse_expression={self.rse_expression!r}: {_text(error)}. `rucio rse list` names them"
            ) from error
        except _NO_LOGIN as error:
            raise CredentialError(
                f"{self!r} does not let you in: {_text(error)}. Look at account and auth_type; renew proxy or token"
            ) from error
        except (rucio_errors.RucioException, requests.RequestException) as error:
            raise CatalogError(
                f"{self!r} cannot be asked: {_text(error)}. Look whether the server is up; a snapshot works without it"
            ) from error


def _split(did: str) -> tuple[str, str]:
    scope, colon, name = did.partition(":")
    if not (colon and scope and name):
        raise ConfigurationError(f"{did!r} is no did: write 'scope:name', for example 'user.jdoe:ttbar'")
    return scope, name


def _is_too_much(error: Exception) -> bool:
    return any(words in str(error) for words in _TOO_MUCH)


def _lfn(facts: Mapping[str, Any]) -> str:
    return f"{facts['scope']}:{facts['name']}"


def _logical_file(lfn: str, facts: Mapping[str, Any]) -> LogicalFile:
    """Return a file with its replicas on disks that are there, in the server's order."""
    states = facts.get("states", {})
    good = [
        (found["priority"], Replica(lfn, found["rse"], pfn))
        for pfn, found in facts.get("pfns", {}).items()
        if found["type"] == "DISK" and not found["volatile"] and states.get(found["rse"]) == "AVAILABLE"
    ]
    replicas = tuple(replica for _, replica in sorted(good))
    return LogicalFile(lfn, int(facts.get("bytes") or -1), str(facts.get("adler32") or ""), replicas)


def _text(error: Exception) -> str:
    # Rucio's errors say "Details: " before what the server has said.
    return without_secrets(" ".join(str(error).split()).partition("Details: ")[2] or str(error) or type(error).__name__)
