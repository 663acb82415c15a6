//! Turns a rendered letter and its enclosures into the bytes of one message (RFC 5322, MIME).
//! Pure: date, Message-ID and boundary arrive in a [`Stamp`](crate::letter::Stamp).
