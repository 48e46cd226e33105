"""Input files, and whatever else code reads: what they are, whether they changed, what a result depends on."""
