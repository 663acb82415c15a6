//! What became of everyone, for people (terminal) and programs (JSON, CSV).
