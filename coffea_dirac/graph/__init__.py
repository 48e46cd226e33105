"""Dask graphs and the cache: which of a graph's results are kept, and a smaller graph that computes the rest.

The rooms, downwards: `door` (one block's or client's graphs), `seam` (where dask lets it in), `collections` (what is
asked for), `rewrite` (the smaller graph), `look_up`, `reasons` (why it is not kept), `tasks` (what runs at a worker),
`plan` (what to do), `prints` (fingerprints of keys), `values` (texts of what tasks say), `literals` (numbers, texts and
axes in tasks), `layers` (dask's graphs), `nodes` (dask's task classes), `doors`.
"""
