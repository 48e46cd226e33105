"""A grid in a box: a real DiracX server on this machine, and sites whose pilots run its jobs.

DiracX 0.7 takes jobs and knows about them; matching and running them is still DIRAC's part.  So here are a matcher and
pilots of our own, which do what DIRAC's do, over the same interfaces.  For tests, demos and trying things out.

`box` starts, shows and ends it from anywhere; all else runs in the server's own environment, by its path.

`lake` is a data lake in a box: a real Rucio server in an environment of its own, and XRootD storages at the sites.
"""
