"""The read side of imports: jobs, snapshots, rejects."""
