"""Which workers are to blame for errors: values in, values out.

A node that is broken fails everything at once, and so gets more to do than all others.  An error at a worker that has
not finished anything in this run yet proves nothing: the work item is tried at another worker, and the first one gets
nothing meanwhile.  If it succeeds there, the first worker is to blame; if not, the user's code or the data.
"""

from __future__ import annotations


class Trust:
    """What is known of the workers of one run.

    Examples
    --------
    >>> trust = Trust()
    >>> trust.is_doubtful("tcp://a", 7)
    True
    >>> trust.doubt("tcp://a", 7, "OSError: no disk")
    >>> trust.succeeded("tcp://b", [7])
    {'tcp://a': 'OSError: no disk'}
    >>> trust.distrusted
    {'tcp://a': 'OSError: no disk'}
    """

    def __init__(self) -> None:
        self.distrusted: dict[str, str] = {}
        self._proven: set[str] = set()
        self._doubts: dict[int, tuple[str, str]] = {}

    def is_doubtful(self, worker: str, position: int) -> bool:
        """Whether an error of a work item may be the worker's own; with an empty address there is no other worker."""
        return bool(worker) and worker not in self._proven and position not in self._doubts

    def doubt(self, worker: str, position: int, why: str) -> None:
        """Give a worker nothing until it is known whether a work item that failed there succeeds elsewhere."""
        self._doubts[position] = worker, why
        self.distrusted.setdefault(worker, "")

    def failed(self, position: int) -> None:
        """Take back the doubt about the worker where a work item failed first: it failed at another one too."""
        worker, _ = self._doubts.pop(position, ("", ""))
        self._clear(worker)

    def succeeded(self, worker: str, positions: list[int]) -> dict[str, str]:
        """Take note of work items that a worker has finished; return those workers that are to blame now, and why."""
        blamed: dict[str, str] = {}
        for position in positions:
            first, why = self._doubts.pop(position, ("", ""))
            if first and first != worker and not self.distrusted.get(first):
                blamed[first] = self.distrusted[first] = why
        if worker and positions:
            self._proven.add(worker)
            self._clear(worker)
        return blamed

    def _clear(self, worker: str) -> None:
        if self.distrusted.get(worker) == "":
            del self.distrusted[worker]
