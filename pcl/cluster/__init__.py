"""All of Ray: connection, jobs, submission, the workers of a training."""
