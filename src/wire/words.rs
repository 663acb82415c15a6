//! The words of servers. They should be ASCII or UTF-8; many a Chinese server says why in GBK.

use std::borrow::Cow;

use encoding_rs::GB18030;

/// What a server said, in characters; what is none is U+FFFD.
pub fn words(bytes: &[u8]) -> Cow<'_, str> {
    let gb = || GB18030.decode_without_bom_handling_and_without_replacement(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => match looks_like_gb(bytes).then(gb).flatten() {
            Some(text) => text,
            None => String::from_utf8_lossy(bytes),
        },
    }
}

/// Whether at least half of what is not ASCII is of GB 2312, where both octets are high: in a European alphabet such
/// an octet mostly has a letter of ASCII behind it.
fn looks_like_gb(bytes: &[u8]) -> bool {
    let (mut pairs, mut usual, mut place) = (0, 0, 0);
    while let Some(&lead) = bytes.get(place) {
        if lead.is_ascii() {
            place += 1;
            continue;
        }
        let trail = bytes.get(place + 1).copied().unwrap_or_default();
        pairs += 1;
        usual += usize::from((0xa1..=0xf7).contains(&lead) && (0xa1..=0xfe).contains(&trail));
        place += 2;
    }
    usual * 2 >= pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_what_they_were_written_in() {
        for said in [
            "5.1.1 no such user",
            "用户不存在",
            "邮件被拒绝，内容含有垃圾信息",
            "系统繁忙，请稍后再试 (MI:SFQ,mx01)",
            "用户 镕@例子.cn 不存在", // 镕 is of GBK, not of GB 2312
        ] {
            let (gb, _, _) = GB18030.encode(said);
            assert_eq!(words(&gb), said);
            assert_eq!(words(said.as_bytes()), said);
        }
        for (said, expected) in [
            (&b"Empf\xe4nger ung\xfcltig"[..], "Empf\u{fffd}nger ung\u{fffd}ltig"),
            (b"bo\xeete pleine", "bo\u{fffd}te pleine"),
            (b"\xff\xff", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(words(said), expected, "{said:?}");
        }
    }
}
