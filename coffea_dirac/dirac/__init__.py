"""Who runs the jobs, and what the jobs run."""
