//! What will be done: templates compiled, job-wide files found, limits fixed. Nothing is connected yet.
