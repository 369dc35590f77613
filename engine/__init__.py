"""Machinery below the five files of the method. No module here imports train, asyppo, critics, rollout, evaluate."""
