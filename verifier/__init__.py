"""Is this answer right?  README.md says the rules, and how to put another verifier in its place."""

from verifier.extract import extract_answer, last_boxed
from verifier.notation import canonical
from verifier.workers import MAX_LENGTH, Verifier

__all__ = ["MAX_LENGTH", "Verifier", "canonical", "extract_answer", "last_boxed"]
