"""The seams of the package and the plain values that cross them.  Read this first.

Three protocols say what the outside must offer: a `Store` keeps blobs, a `Catalog` knows replicas, a `JobService` runs
jobs.  Everything else here is a frozen value without behaviour.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

Json = Any
"""A value that ``json.dumps`` takes."""
Versions = Literal["exact", "minor"]
"""How the versions of installed packages enter fingerprints: as they are, or only major.minor of them."""


class Blob(NamedTuple):
    """What a store says of one blob when it lists."""

    name: str
    size_bytes: int
    modified_s: float


@runtime_checkable
class Store(Protocol):
    """Four verbs on immutable, uniquely named blobs.

    Names are relative, use ``/`` and consist of ``[A-Za-z0-9._-]``.  Two writers never share a name, so there are no
    locks and no overwriting.  A missing blob is ``None``, not an error; a store that cannot be reached, read or
    written raises `coffea_dirac.errors.StoreError`.
    """

    @property
    def url(self) -> str:
        """Where the store is, as `coffea_dirac.open_store` understands it."""
        ...

    def list(self, prefix: str = "") -> Sequence[Blob]:
        """Return the blobs whose name starts with `prefix`, sorted by name; an absent store is empty."""
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """Return bytes ``start:stop`` of a blob (a negative start counts from its end), or None if it is missing."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a new blob, all of it or nothing."""
        ...

    def delete(self, name: str) -> None:
        """Remove a blob; a missing one is no error."""
        ...


InputKind = Literal["metadata", "file", "written"]


class Discovered(NamedTuple):
    """One thing that user code read from outside while it ran.

    ``kind="metadata"``: a key of ``events.metadata``; ``kind="file"``: a file, `digest` is that of its content;
    ``kind="written"``: a file that the code wrote, `digest` is empty and nothing is checked.
    A `digest` of ``"absent"`` says that it was looked for and not there.
    """

    kind: InputKind
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Record:
    """A result as it is kept: its payload and what it is the result of.

    Parameters
    ----------
    key : str
        Hex fingerprint under which it is looked up.
    payload : bytes
        What `codec` made of the result.
    codec : str
        Name of the codec.
    inputs : tuple of Discovered
        What else determined the result, found while it was computed; sorted.
    second_key : str
        Hex digest of code and input contents, for early cutoff; empty if there is none.
    info : mapping
        Small facts as JSON values (stage, seconds, entries, columns, where), never needed for correctness.
    """

    key: str
    payload: bytes
    codec: str
    inputs: tuple[Discovered, ...] = ()
    second_key: str = ""
    info: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """Where one record lies and what it is: a record without its payload, as kept in footers and indexes."""

    key: str
    inputs: tuple[Discovered, ...]
    second_key: str
    digest: str
    codec: str
    pack: str
    offset: int
    length: int
    signature: str = ""
    info: Mapping[str, Json] = field(default_factory=dict, compare=False)


class Replica(NamedTuple):
    """One copy of a logical file."""

    lfn: str
    rse: str
    pfn: str


class LogicalFile(NamedTuple):
    """A file by its name in the catalog, what it holds, and its copies that can be read now, the catalog's order.

    `size_bytes` is -1 and `adler32` empty if the catalog does not know them.  `request` is a digest of what made the
    file, if that and its name tell what it holds.
    """

    lfn: str
    size_bytes: int
    adler32: str
    replicas: tuple[Replica, ...]
    request: str = ""


@runtime_checkable
class Catalog(Protocol):
    """Answers which logical files a did (a dataset, a container, a file) has, where they are, and near what."""

    def locate(self, dids: Sequence[str]) -> Mapping[str, Sequence[LogicalFile]]:
        """Return the files of each did, those without a replica too; an unknown did maps to an empty sequence."""
        ...

    def sites(self, rses: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Return which of some RSEs are at each site; those of which it is not known are left out."""
        ...

    def touch(self, did: str) -> None:
        """Take note that a did is read, if anybody wants to know."""
        ...

    def suspect(self, pfn: str, why: str) -> None:
        """Take note that a replica is not what it should be, if anybody wants to know."""
        ...


JobStatus = Literal["waiting", "running", "done", "failed", "killed"]


@dataclass(frozen=True, slots=True)
class Job:
    """One job to submit: it starts one worker.

    Parameters
    ----------
    arguments : tuple of str
        The command line after the interpreter; secrets never travel here.
    files : mapping
        Name -> content of what lies in the job's working directory, readable by its owner only.
    name : str
        What the job is called; it finds this as ``COFFEA_DIRAC_JOB`` in its environment.
    sites : tuple of str
        Where it may run, by DIRAC's names; none for anywhere.
    banned_sites : tuple of str
        Where it must not run.
    cores : int
        Processors it uses.
    memory_bytes : int
        Memory it needs; 0 if that is not known.
    cpu_time_s : int
        How long it may run.
    tags : tuple of str
        What else the place must have, by DIRAC's names, as in ``("GPU",)``.
    environment : str
        Where the interpreter comes from at the site; see `coffea_dirac.dirac.script`.
    setup : str
        Shell commands before the interpreter starts.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    name: str = ""
    sites: tuple[str, ...] = ()
    banned_sites: tuple[str, ...] = ()
    cores: int = 1
    memory_bytes: int = 0
    cpu_time_s: int = 21_600
    tags: tuple[str, ...] = ()
    environment: str = ""
    setup: str = ""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a job service knows of a job.

    Parameters
    ----------
    status : JobStatus
        In our words.
    told : str
        In the service's own words, as in ``"Waiting, Pilot Agent Submission"``.
    site : str
        Where it is; empty if that is not decided.
    since : str
        When that was said last, in ISO 8601; empty if that is not known.
    """

    status: JobStatus
    told: str = ""
    site: str = ""
    since: str = ""


@runtime_checkable
class JobService(Protocol):
    """Takes jobs, tells about them, kills them."""

    def submit(self, jobs: Sequence[Job]) -> Sequence[str]:
        """Submit jobs in bulk and return an id for each, in order."""
        ...

    def status(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Return the status of each job."""
        ...

    def describe(self, ids: Sequence[str]) -> Mapping[str, JobFacts]:
        """Return all that is known of each job, in as few requests as can be."""
        ...

    def kill(self, ids: Sequence[str]) -> None:
        """End jobs; one that has ended already is no error."""
        ...

    def logs(self, job_id: str) -> str:
        """Return what a job has printed, as far as it is known."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the result of one stage came about.

    `reason` is None for a loaded result; otherwise why it was not loaded, data first
    (``{"reason": "new code", "where": "select_jets", ...}``).
    """

    stage: str
    fingerprint: str
    outcome: Literal["loaded", "computed", "cut"]
    reason: Mapping[str, Json] | None = None
    seconds: float = 0.0
    work_items: int = 1
