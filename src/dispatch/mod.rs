//! The engine: a core that answers events with actions, by a clock it is given, and its shell.
