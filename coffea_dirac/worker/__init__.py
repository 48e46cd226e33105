"""What runs at a worker: `work` processes the work items of a bundle, `fold` merges results, `task` is what travels."""
