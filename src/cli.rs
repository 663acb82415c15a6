//! What may be typed: clap only, no decisions.
