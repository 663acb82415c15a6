//! A composed message: an envelope and its content as a list of slices, own and shared.

use std::ops::Range;

use super::{Envelope, Octets};

/// One stretch of a message's content.
#[derive(Debug, Clone)]
pub enum Slice {
    /// A range of the message's own bytes.
    Own(Range<usize>),
    /// A part that was encoded before: borrowed by each message that has it.
    Shared(Octets),
}

/// The content of a message (RFC 5322), CRLF line ends, ready for DATA or BDAT: no line begins
/// with a dot, so that nothing needs stuffing (RFC 5321 §4.5.2), and the last line ends in CRLF.
#[derive(Debug, Clone, Default)]
pub struct Content {
    own: Vec<u8>,
    slices: Vec<Slice>,
    len: usize,
}

impl Content {
    /// Content of its own bytes alone.
    pub fn from_bytes(own: Vec<u8>) -> Content {
        let len = own.len();
        Content { own, slices: vec![Slice::Own(0..len)], len }
    }

    /// Content of own and shared stretches; ranges of [`Slice::Own`] index `own`.
    pub fn new(own: Vec<u8>, slices: Vec<Slice>) -> Content {
        let len = slices
            .iter()
            .map(|slice| match slice {
                Slice::Own(range) => range.len(),
                Slice::Shared(bytes) => bytes.len(),
            })
            .sum();
        Content { own, slices, len }
    }

    /// Octets on the wire, without the final dot.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that only this message holds: what it costs in memory. Slices that others hold too
    /// cost it nothing.
    pub fn weight(&self) -> usize {
        let alone = self.slices.iter().map(|slice| match slice {
            Slice::Shared(bytes) if bytes.is_alone() => bytes.len(),
            _ => 0,
        });
        self.own.len() + alone.sum::<usize>()
    }

    /// How many stretches there are.
    pub fn stretches(&self) -> usize {
        self.slices.len()
    }

    /// The n-th stretch.
    pub fn stretch(&self, n: usize) -> &[u8] {
        match &self.slices[n] {
            Slice::Own(range) => &self.own[range.clone()],
            Slice::Shared(bytes) => bytes,
        }
    }

    /// The stretches in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.slices.len()).map(|n| self.stretch(n))
    }

    /// All bytes in one piece, for files and tests.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        self.iter().for_each(|stretch| all.extend_from_slice(stretch));
        all
    }
}

/// A message ready for submission.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who sends and receives.
    pub envelope: Envelope,
    /// The bytes.
    pub content: Content,
    /// Some octet is above 127 in the content: BODY=8BITMIME (RFC 6152). Our composer never makes such.
    pub eight_bit: bool,
    /// An address or header needs SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
}
