//! A relay and a maildrop on loopback, for trying out and for tests.
