"""One call of the executor at the submitter, from work items to the merged accumulator: begin with `run`."""
