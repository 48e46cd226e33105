"""What is known of work items before anything runs."""

import pytest
from coffea.processor.executor import WorkItem
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.calls import item_metadata
from coffea_dirac.inputs.metadata import metadata_digest
from coffea_dirac.running.plan import metadata_of

pytestmark = pytest.mark.core

NAMES = ("dataset", "filename", "treename", "entrystart", "entrystop", "fileuuid", "xsec", "absent", "*")
METADATA = st.none() | st.dictionaries(st.sampled_from(["xsec", "filename", "entrystart", "lumi"]), st.integers(0, 2))
ITEMS = st.builds(
    WorkItem,
    dataset=st.sampled_from(["ttbar", "wjets"]),
    filename=st.sampled_from(["a.root", "b.root"]),
    treename=st.just("Events"),
    entrystart=st.integers(0, 2),
    entrystop=st.integers(3, 5),
    fileuuid=st.sampled_from([b"", b"0" * 16, b"1" * 16]),
)


@given(st.lists(METADATA, min_size=1, max_size=3), st.lists(st.tuples(ITEMS, st.integers(0, 2)), max_size=12))
def test_metadata_that_work_items_share_is_digested_once_and_never_taken_for_that_of_another(shared, planned):
    items = [WorkItem(**{**vars(item), "usermeta": shared[n % len(shared)]}) for item, n in planned]
    digests = {}
    for item in items:
        of = metadata_of(item, digests)
        for name in NAMES:
            assert of(name) == metadata_digest(item_metadata(item), name), (item, name)
    metadata, datasets, files = (
        {f(item) for item in items} for f in (lambda i: id(i.usermeta), lambda i: i.dataset, lambda i: i.filename)
    )
    # "*", xsec, filename and entrystart where the fileset says them; dataset, filename and the one treename else.
    assert len(digests) <= 4 * len(metadata) + len(datasets) + len(files) + 1
