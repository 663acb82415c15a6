//! Reading mail: the tree of a message, its fields decoded, its text. What cannot be understood is
//! shown as it stands; nothing here refuses a message, and nothing here needs more memory than asked for.

mod date;
mod field;

pub use date::date;
pub use field::{Field, fields, header_end, unfold};
