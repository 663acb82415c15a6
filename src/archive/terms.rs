//! The words by which messages are found. Those of most scripts are as they stand, in lower case; runs of Chinese,
//! Japanese and Korean characters, which have no blanks between words, are pairs of neighbours (发票号 is 发票 and 票号).

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Words longer than this are no words.
const MAX_WORD: usize = 64;

/// Words, each once, with blanks between.
#[derive(Default)]
pub(super) struct Terms {
    /// The words.
    pub(super) text: String,
    seen: HashSet<u64, BuildHasherDefault<Taken>>,
}

impl Terms {
    /// Adds those of a text that are not there yet.
    pub(super) fn add(&mut self, text: &str) {
        each(text, |term| {
            let hash = hash_of(term);
            if self.seen.insert(hash) {
                self.text.push_str(term);
                self.text.push(' ');
            }
        });
    }
}

/// A hash that is one already.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// FNV-1a: of 64 bits, so that two words of one message are not taken for one.
fn hash_of(term: &str) -> u64 {
    term.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Hands every word of a text to `each`: letters and digits in lower case; of scripts without blanks
/// the pairs of neighbours, and the last character, so that one character alone can be found as well.
pub(super) fn each(text: &str, mut each: impl FnMut(&str)) {
    let mut word = String::new();
    let mut pair = String::new();
    let mut last: Option<char> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (length, c) = match c {
            // Full-width letters and digits are the same letters and digits.
            '\u{ff01}'..='\u{ff5e}' => (c.len_utf8(), char::from_u32(c as u32 - 0xfee0).unwrap_or(c)),
            // What most text is made of goes by the run.
            c if c.is_ascii_alphanumeric() => (rest.bytes().take_while(u8::is_ascii_alphanumeric).count(), c),
            c => (c.len_utf8(), c),
        };
        let (run, after) = rest.split_at(length);
        rest = after;
        if is_dense(c) {
            take(&mut word, &mut each);
            if let Some(before) = last {
                pair.clear();
                pair.push(before);
                pair.push(c);
                each(&pair);
            }
            last = Some(c);
            continue;
        }
        if let Some(alone) = last.take() {
            pair.clear();
            pair.push(alone);
            each(&pair);
        }
        if c.is_ascii_alphanumeric() && run.is_ascii() {
            let from = word.len();
            word.push_str(run);
            word[from..].make_ascii_lowercase();
        } else if c.is_ascii_alphanumeric() {
            word.push(c.to_ascii_lowercase());
        } else if !c.is_ascii() && c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        } else if !c.is_ascii() && is_mark(c) {
            word.push(c);
        } else {
            take(&mut word, &mut each);
        }
    }
    take(&mut word, &mut each);
    if let Some(alone) = last {
        pair.clear();
        pair.push(alone);
        each(&pair);
    }
}

fn take(word: &mut String, each: &mut impl FnMut(&str)) {
    if !word.is_empty() && word.len() <= MAX_WORD {
        each(word);
    }
    word.clear();
}

/// Combining marks belong to the letter before them.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{0300}'..='\u{036f}' | '\u{0900}'..='\u{0dff}' | '\u{0e31}'..='\u{0e4e}' | '\u{3099}' | '\u{309a}')
}

/// Characters of scripts that put no blanks between words.
fn is_dense(c: char) -> bool {
    matches!(c,
        '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_words_and_pairs() {
        for (text, expected) in [
            ("The Report, no. 7", "the|report|no|7"),
            ("发票号码", "发票|票号|号码|码"),
            ("请查收2026年发票abc", "请查|查收|收|2026|年发|发票|票|abc"),
            ("票", "票"),
            ("ＡＢＣ１２", "abc12"),
            ("Grüße ÄÖ", "grüße|äö"),
            ("x1Ü2Y Ａb3", "x1ü2y|ab3"),
            ("안녕 こんにちは", "안녕|녕|こん|んに|にち|ちは|は"),
            ("  --  ", ""),
        ] {
            let mut found = Vec::new();
            each(text, |term| found.push(term.to_owned()));
            assert_eq!(found.join("|"), expected, "{text}");
        }
    }
}
