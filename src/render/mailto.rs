//! `unsubscribe: {mailto: …}`: an address, and what the letter written to it has in it (RFC 6068).

use crate::mail::EmailAddress;

use super::error::RowError;
use super::line::{Line, Pattern, View};
use crate::letter::Piece;

/// The templates of an address and of the fields behind its `?`.
pub(super) struct Mailto {
    pub(super) address: Line,
    /// `subject=…&body=…`; what is the job's own text in it and what a value is known apart.
    pub(super) fields: Option<Pattern>,
}

impl Mailto {
    /// The URL for the row of the view, fit to stand between angle brackets and among others.
    pub(super) fn render(&self, view: &View) -> Result<String, RowError> {
        let line = &self.address;
        let address: EmailAddress =
            line.render_line(view)?.parse().map_err(|error| line.error(format!("{error}")))?;
        if address.needs_smtputf8() {
            return Err(line.error("an address in List-Unsubscribe is of ASCII"));
        }
        let mut url = "mailto:".to_owned();
        escape(&mut url, &address.wire(), "-._~!$'*+@=");
        if let Some(fields) = &self.fields {
            url.push('?');
            for piece in fields.render(view)? {
                // No value begins a field, and none ends one.
                match piece {
                    Piece::Operator(text) => escape(&mut url, &text, "-._~!$'()*+;:@/?&=%"),
                    Piece::Value(text) => escape(&mut url, &text, "-._~%"),
                }
            }
        }
        Ok(url)
    }
}

/// A template at the first `?` that is the job's own: not one within `{{ }}`, `{% %}` or `{# #}`.
pub(super) fn split(template: &str) -> (&str, Option<&str>) {
    let mut at = 0;
    while let Some(rest) = template.get(at..).filter(|rest| !rest.is_empty()) {
        let close = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")]
            .into_iter()
            .find_map(|(open, close)| rest.starts_with(open).then_some(close));
        at += match (close, rest.strip_prefix('?')) {
            (Some(close), _) => rest.find(close).map_or(rest.len(), |end| end + close.len()),
            (None, Some(fields)) => return (&template[..at], Some(fields)),
            (None, None) => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    (template, None)
}

/// Writes text into a URL: letters, digits and what is in `plain` as they are, all else in percents.
/// A `%` that is plain is so only before two hexadecimal digits: what is escaped is not escaped again.
fn escape(out: &mut String, text: &str, plain: &str) {
    for (at, byte) in text.bytes().enumerate() {
        let escaped = || {
            let digits = text.as_bytes().get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        let kept = byte.is_ascii_alphanumeric() || plain.as_bytes().contains(&byte);
        if kept && (byte != b'%' || escaped()) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_ends_its_address_at_its_own_question_mark() {
        for (template, expected) in [
            ("leave@example.com", ("leave@example.com", None)),
            ("leave@example.com?subject=x?", ("leave@example.com", Some("subject=x?"))),
            ("{{ a ~ '?' }}@b?{{ c }}", ("{{ a ~ '?' }}@b", Some("{{ c }}"))),
            ("ü{# ? #}{% if a %}", ("ü{# ? #}{% if a %}", None)),
            ("{{ broken?", ("{{ broken?", None)),
            ("", ("", None)),
        ] {
            assert_eq!(split(template), expected, "{template}");
        }
    }
}
