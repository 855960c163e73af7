"""The scheduler process: requests, their traces, batches and the prefix cache."""
