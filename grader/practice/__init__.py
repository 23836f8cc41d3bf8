"""What the learner works with: stubs, the workspace, snapshots and progress."""
