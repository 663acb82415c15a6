//! Address lists (RFC 5322 §3.4), read leniently.

use super::word;

/// Somebody in a From, To or Cc.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Address {
    /// The name, decoded; empty if there is none.
    pub name: String,
    /// The address as it stands.
    pub address: String,
}

/// More than this in one field are not read.
const MAX_ADDRESSES: usize = 10_000;

/// The addresses of a field. Groups are taken apart; what is no address at all becomes a name.
pub fn addresses(value: &[u8], hint: Option<&str>) -> Vec<Address> {
    let value = super::field::unfold(value);
    let mut found = Vec::new();
    let mut one = One::default();
    let (mut quoted, mut angle, mut comment, mut escaped) = (false, false, 0usize, false);
    for &byte in &value {
        if found.len() >= MAX_ADDRESSES {
            break;
        }
        if comment > 0 {
            match byte {
                _ if escaped => {
                    escaped = false;
                    one.comment.push(byte);
                }
                b'\\' => escaped = true,
                b')' => {
                    comment -= 1;
                    if comment > 0 {
                        one.comment.push(byte);
                    }
                }
                byte => {
                    comment += usize::from(byte == b'(');
                    one.comment.push(byte);
                }
            }
            continue;
        }
        if quoted {
            match byte {
                _ if escaped => {
                    escaped = false;
                    one.text(angle).push(byte);
                }
                b'\\' => escaped = true,
                b'"' => {
                    quoted = false;
                    one.quote(angle);
                }
                byte => one.text(angle).push(byte),
            }
            continue;
        }
        match byte {
            b'"' => {
                quoted = true;
                one.quote(angle);
            }
            b'(' => comment = 1,
            b'<' => {
                angle = true;
                one.angle = Some(Vec::new());
            }
            b'>' => angle = false,
            b',' | b';' if !angle => one.take(&mut found, hint),
            // A group's name is nobody's.
            b':' if !angle && one.angle.is_none() => one = One::default(),
            byte => one.text(angle).push(byte),
        }
    }
    one.take(&mut found, hint);
    found
}

#[derive(Default)]
struct One {
    text: Vec<u8>,
    angle: Option<Vec<u8>>,
    comment: Vec<u8>,
}

impl One {
    fn text(&mut self, angle: bool) -> &mut Vec<u8> {
        match &mut self.angle {
            Some(inside) if angle => inside,
            _ => &mut self.text,
        }
    }

    /// Quotes belong to a local part and not to a name.
    fn quote(&mut self, angle: bool) {
        if angle {
            self.text(true).push(b'"');
        }
    }

    fn take(&mut self, found: &mut Vec<Address>, hint: Option<&str>) {
        let one = std::mem::take(self);
        let decode = |bytes: &[u8]| {
            let text = word::text(bytes, hint);
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let address = match &one.angle {
            Some(inside) => {
                let inside = word::raw(&compact(inside), hint);
                // A route before the mailbox (RFC 5322 §4.4) is obsolete.
                let inside = match inside.strip_prefix('@').and_then(|route| route.split_once(':')) {
                    Some((_, mailbox)) => mailbox.to_owned(),
                    None => inside,
                };
                let name = if one.text.trim_ascii().is_empty() { &one.comment } else { &one.text };
                Address { name: decode(name), address: inside }
            }
            None if one.text.contains(&b'@') => {
                Address { name: decode(&one.comment), address: word::raw(&compact(&one.text), hint) }
            }
            // One word is somebody on the sender's own machine: `root`.
            None if is_local(one.text.trim_ascii()) => {
                Address { name: decode(&one.comment), address: word::raw(one.text.trim_ascii(), hint) }
            }
            None => Address { name: decode(&one.text), address: String::new() },
        };
        if address != Address::default() {
            found.push(address);
        }
    }
}

/// An address without the blanks that once might stand around its dots and its `@` (RFC 5322 §4.4).
fn compact(address: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(address.len());
    let (mut quoted, mut blanks) = (false, 0);
    for (at, &byte) in address.iter().enumerate() {
        if !quoted && byte.is_ascii_whitespace() {
            blanks += 1;
            continue;
        }
        let joined = matches!(byte, b'.' | b'@') || matches!(out.last(), None | Some(b'.' | b'@'));
        if !joined {
            out.extend_from_slice(&address[at - blanks..at]);
        }
        blanks = 0;
        quoted ^= byte == b'"';
        out.push(byte);
    }
    out
}

/// Whether a text without `@` is an address all the same: a single word that encodes nothing.
fn is_local(text: &[u8]) -> bool {
    !text.is_empty() && !text.starts_with(b"=?") && text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        for (value, expected) in [
            (&b"ada@example.org"[..], &[("", "ada@example.org")][..]),
            (
                b"Ada <ada@example.org>, \"Hopper, Grace\" <grace@example.org>",
                &[("Ada", "ada@example.org"), ("Hopper, Grace", "grace@example.org")],
            ),
            (b"=?utf-8?B?5byg5LiJ?= <z@example.cn>", &[("张三", "z@example.cn")]),
            (b"\"=?utf-8?B?5byg5LiJ?=\" <z@example.cn>", &[("张三", "z@example.cn")]),
            (b"\xd5\xc5\xc8\xfd <z@example.cn>", &[("张三", "z@example.cn")]),
            (b"ada@example.org (Ada (the) Countess)", &[("Ada (the) Countess", "ada@example.org")]),
            (
                b"Friends: a@x.org, B <b@x.org>;, c@x.org",
                &[("", "a@x.org"), ("B", "b@x.org"), ("", "c@x.org")],
            ),
            (b"undisclosed-recipients:;", &[]),
            (b"<@route,@x:a@x.org>", &[("", "a@x.org")]),
            (b"\"quo\\\"ted\" <\"odd local\"@x.org>", &[("quo\"ted", "\"odd local\"@x.org")]),
            (b"root", &[("", "root")]),
            (b"root (the Administrator)", &[("the Administrator", "root")]),
            (b"Nobody at all", &[("Nobody at all", "")]),
            (b"=?utf-8?B?5byg5LiJ?=", &[("张三", "")]),
            (
                b"John Doe <jdoe@machine .\r\n example>, jdoe @ test . example, <\"a . b\"@x.org>",
                &[("John Doe", "jdoe@machine.example"), ("", "jdoe@test.example"), ("", "\"a . b\"@x.org")],
            ),
            (b" , ,", &[]),
            (b"", &[]),
        ] {
            let found = addresses(value, None);
            let found: Vec<(&str, &str)> =
                found.iter().map(|a| (a.name.as_str(), a.address.as_str())).collect();
            assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(value));
        }
    }
}
