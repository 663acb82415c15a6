//! Reading mail: the tree of a message, its fields decoded, its text. What cannot be understood is
//! shown as it stands; nothing here refuses a message, and nothing here needs more memory than asked for.

mod address;
mod charset;
mod date;
mod field;
pub mod html;
mod parameter;
mod tree;
mod uu;
mod word;

pub use address::{Address, addresses};
pub use charset::{Decoded, decode, detect};
pub use date::date;
pub use field::{Field, fields, header_end, unfold};
pub use parameter::Parameters;
pub use tree::{Keep, MAX_PARTS, Part, Scanner, one_line};
pub use uu::{Uuencoded, uuencoded};
pub use word::text;
