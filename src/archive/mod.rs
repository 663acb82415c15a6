//! A mailbox on disk, complete and provable: retrieve, store, journal, index.
