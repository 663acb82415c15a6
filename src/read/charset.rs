//! Characters out of bytes: by the declared charset, and where that is missing or wrong, by what the
//! bytes look like. Declared names are taken for the superset that is met in practice (GB2312 as
//! GB18030, ISO-8859-1 as windows-1252), as every mail program does.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_2022_JP, ISO_8859_2, SHIFT_JIS, UTF_8, WINDOWS_1250,
    WINDOWS_1251, WINDOWS_1252, WINDOWS_1254,
};

/// Text, and the charset it was taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The characters; what is no character is U+FFFD.
    pub text: String,
    /// The charset's usual name, lower case.
    pub charset: String,
}

/// Decodes by the declared name, if it is one; otherwise, and where a declared US-ASCII holds more than
/// that, by [`detect`].
pub fn decode(declared: Option<&str>, bytes: &[u8]) -> Decoded {
    let name = declared.map(normal).unwrap_or_default();
    if bytes.is_ascii()
        && !bytes.contains(&0x1b)
        && !name.starts_with("utf-7")
        && name != "hz-gb-2312"
        && !name.starts_with("utf-16")
    {
        let charset = if name.is_empty() { "us-ascii".to_owned() } else { name };
        return Decoded { text: String::from_utf8_lossy(bytes).into_owned(), charset };
    }
    match name.as_str() {
        "utf-7" | "unicode-1-1-utf-7" => return Decoded { text: utf7(bytes), charset: name },
        "hz-gb-2312" => return Decoded { text: hz(bytes), charset: name },
        "iso-2022-kr" => return Decoded { text: iso_2022_kr(bytes), charset: name },
        _ => {}
    }
    let encoding = named(&name).unwrap_or_else(|| detect(bytes));
    let tidy = (encoding == ISO_2022_JP).then(|| one_escape_at_a_time(bytes));
    let (text, used, wrong) = encoding.decode(tidy.as_deref().unwrap_or(bytes));
    // UTF-8 that is declared as something else is met more often than the other way round. What has
    // seven bits only is no UTF-8 of its own.
    if encoding != UTF_8
        && !bytes.is_ascii()
        && let Ok(text) = std::str::from_utf8(bytes)
        && (wrong || (encoding.is_ascii_compatible() && is_no_chance(text)))
    {
        return Decoded { text: text.to_owned(), charset: "utf-8".into() };
    }
    if wrong && is_far_from(encoding, bytes) {
        let (text, used, _) = detect(bytes).decode(bytes);
        return Decoded { text: text.into_owned(), charset: used.name().to_ascii_lowercase() };
    }
    let charset = if name.is_empty() { used.name().to_ascii_lowercase() } else { name };
    Decoded { text: text.into_owned(), charset }
}

/// Whether text is UTF-8 that is valid in no other charset but by accident: it has two characters of three octets,
/// wherever they are. No piece of two to eight characters of Chinese in GBK was such text among 1.8 million.
fn is_no_chance(text: &str) -> bool {
    text.chars().filter(|&c| c >= '\u{800}').nth(1).is_some()
}

/// Whether bytes that are wrong in the declared encoding are not of it at all: GBK that is called UTF-8, Shift_JIS
/// that is called ISO-2022-JP. One character that is cut in two says nothing.
fn is_far_from(declared: &'static Encoding, bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    if declared == ISO_2022_JP {
        return !sample.is_ascii() && !sample.contains(&0x1b);
    }
    let (good, bad) = utf8_characters(sample);
    declared == UTF_8 && bad >= 2 && bad > good
}

/// The encoding of a declared name; `None` where it says nothing (US-ASCII, `unknown-8bit`, a slip).
pub(super) fn named(name: &str) -> Option<&'static Encoding> {
    match name {
        "" | "us-ascii" | "ascii" | "ansi_x3.4-1968" | "unknown-8bit" | "x-unknown" | "unknown"
        | "default" | "_autodetect" => None,
        // Microsoft's page for ISO-2022-JP, and names that only mail has.
        "cp50220" | "cp50221" | "cp50222" | "iso-2022-jp-1" | "iso-2022-jp-2" | "iso-2022-jp-ms" => {
            Some(ISO_2022_JP)
        }
        "cp936" | "ms936" | "windows-936" | "gb2312-80" | "x-gb2312" | "euc-cn" => Some(GB18030),
        "cp950" | "ms950" | "windows-950" | "big5-eten" | "x-big5" => Some(BIG5),
        "cp932" | "ms932" | "windows-932" => Some(SHIFT_JIS),
        "cp949" | "ms949" | "uhc" => Some(EUC_KR),
        "utf8" | "utf-8mb4" => Some(UTF_8),
        // What browsers refuse to read is one replacement character.
        _ => Encoding::for_label_no_replacement(name.as_bytes()).map(|found| match found {
            found if found == GBK => GB18030,
            found => found,
        }),
    }
}

fn normal(name: &str) -> String {
    let name = name.trim().trim_matches(['"', '\'']);
    name.split('*').next().unwrap_or(name).trim().to_ascii_lowercase()
}

/// What bytes without a declaration look like: UTF-8 if they are valid as that; else the one of the
/// legacy encodings in whose usual characters most of them fall, or the alphabet whose letters they are.
pub fn detect(bytes: &[u8]) -> &'static Encoding {
    if std::str::from_utf8(bytes).is_ok() && !bytes.contains(&0x1b) {
        return UTF_8;
    }
    if bytes.is_ascii() {
        let shifts = [&b"\x1b$B"[..], b"\x1b$@", b"\x1b(J"];
        let found = shifts.iter().any(|shift| memchr::memmem::find(bytes, shift).is_some());
        return if found { ISO_2022_JP } else { UTF_8 };
    }
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    // UTF-8 with a flaw, such as a character cut in two at the end.
    if mostly_utf8(sample) {
        return UTF_8;
    }
    // In the order in which a draw is decided.
    let scores = [
        (GB18030, two_bytes(sample, gb)),
        (BIG5, two_bytes(sample, big5)),
        (EUC_KR, korean(sample)),
        (SHIFT_JIS, two_bytes(sample, shift_jis)),
        (EUC_JP, two_bytes(sample, euc_jp)),
        (WINDOWS_1252, western(sample)),
    ];
    let mut best = scores[0];
    for score in scores {
        if score.1 > best.1 {
            best = score;
        }
    }
    second_opinion(sample, best.0)
}

/// What a browser's detector says of a text that looks like `first`. It knows alphabets, which the scores take
/// for Western or Chinese; on a few characters of East Asia the scores are the better ones.
fn second_opinion(sample: &[u8], first: &'static Encoding) -> &'static Encoding {
    if first == SHIFT_JIS {
        return first;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(sample, true);
    let guess = detector.guess(None, Utf8Detection::Allow);
    if first == EUC_KR && guess == GBK {
        return GB18030;
    }
    let beyond_ascii = sample.iter().filter(|byte| !byte.is_ascii()).count();
    let is_latin = [WINDOWS_1250, WINDOWS_1252, WINDOWS_1254, ISO_8859_2].contains(&guess);
    let believed = match (guess, first) {
        _ if !guess.is_single_byte() => false,
        // Letters there, and in windows-1252 the quotes of French, German and Spanish.
        (guess, _) if guess == ISO_8859_2 && sample.contains(&0xab) && sample.contains(&0xbb) => false,
        (_, first) if first == WINDOWS_1252 => beyond_ascii >= FEWEST_OF_AN_ALPHABET,
        _ if is_latin => false,
        (guess, _) if guess == WINDOWS_1251 && are_lower_case_in_1251(sample) => {
            beyond_ascii >= FEWEST_OF_AN_ALPHABET
        }
        _ => beyond_ascii >= FEWEST_OF_NO_CHINESE,
    };
    if believed { guess } else { first }
}

/// With fewer bytes beyond ASCII the detector takes one alphabet for another.
const FEWEST_OF_AN_ALPHABET: usize = 4;

/// With fewer it takes four Chinese characters for a word of an alphabet.
const FEWEST_OF_NO_CHINESE: usize = 10;

/// Whether all letters of a word but its first are lower case: few Chinese characters are so.
fn are_lower_case_in_1251(sample: &[u8]) -> bool {
    sample.windows(2).all(|pair| pair[0].is_ascii() || pair[1].is_ascii() || pair[1] >= 0xE0)
}

/// So much is looked at.
const SAMPLE: usize = 8 * 1024;

fn mostly_utf8(bytes: &[u8]) -> bool {
    let (good, bad) = utf8_characters(bytes);
    good > 4 * bad
}

/// Beyond ASCII: how many characters of UTF-8 there are, and how many places that are none.
fn utf8_characters(bytes: &[u8]) -> (usize, usize) {
    let (mut good, mut bad) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        bad += usize::from(!chunk.invalid().is_empty());
    }
    (good, bad)
}

/// The mean score of characters of one or two bytes: `judge` scores lead and trail, or says that it is no
/// character.
fn two_bytes(bytes: &[u8], judge: fn(u8, Option<u8>) -> Option<(i32, usize)>) -> i32 {
    let (mut at, mut sum, mut count) = (0, 0, 0);
    while at < bytes.len() {
        if bytes[at].is_ascii() {
            at += 1;
            continue;
        }
        count += 1;
        match judge(bytes[at], bytes.get(at + 1).copied()) {
            Some((score, length)) => {
                sum += score;
                at += length;
            }
            // The last byte may be half of what was cut off.
            None if at + 1 == bytes.len() => at += 1,
            None => {
                sum -= 60;
                at += 1;
            }
        }
    }
    if count == 0 { 0 } else { sum * 10 / count }
}

fn gb(lead: u8, trail: Option<u8>) -> Option<(i32, usize)> {
    match (lead, trail?) {
        (0xB0..=0xD7, 0xA1..=0xFE) => Some((30, 2)),
        (0xA1..=0xA3, 0xA1..=0xFE) => Some((20, 2)),
        (0xD8..=0xF7, 0xA1..=0xFE) => Some((5, 2)),
        // The part that GBK added: rare characters, and pairs that Western text makes by chance.
        (0x81..=0xFE, 0x40..=0x7E | 0x80..=0xFE) => Some((-20, 2)),
        (0x81..=0xFE, 0x30..=0x39) => Some((-10, 4)),
        _ => None,
    }
}

fn big5(lead: u8, trail: Option<u8>) -> Option<(i32, usize)> {
    match (lead, trail?) {
        (0xA4..=0xC6, 0x40..=0x7E | 0xA1..=0xFE) => Some((29, 2)),
        (0xA1..=0xA3, 0x40..=0x7E | 0xA1..=0xFE) => Some((15, 2)),
        (0xC9..=0xF9, 0x40..=0x7E | 0xA1..=0xFE) => Some((0, 2)),
        _ => None,
    }
}

fn shift_jis(lead: u8, trail: Option<u8>) -> Option<(i32, usize)> {
    match (lead, trail) {
        (0x82, Some(0x9F..=0xF1)) | (0x83, Some(0x40..=0x96)) => Some((40, 2)),
        (0x81, Some(0x40..=0x7E | 0x80..=0xFC)) => Some((20, 2)),
        (0x88..=0x97, Some(0x40..=0x7E | 0x80..=0xFC)) => Some((25, 2)),
        (0x98..=0x9F | 0xE0..=0xEA, Some(0x40..=0x7E | 0x80..=0xFC)) => Some((-5, 2)),
        (0xA1..=0xDF, _) => Some((-10, 1)),
        _ => None,
    }
}

fn euc_jp(lead: u8, trail: Option<u8>) -> Option<(i32, usize)> {
    match (lead, trail?) {
        (0xA4 | 0xA5, 0xA1..=0xF6) => Some((45, 2)),
        (0xA1, 0xA1..=0xFE) => Some((20, 2)),
        (0xB0..=0xCF, 0xA1..=0xFE) => Some((20, 2)),
        (0xA2 | 0xA3 | 0xA6..=0xA8 | 0xD0..=0xF4, 0xA1..=0xFE) => Some((0, 2)),
        (0x8E, 0xA1..=0xDF) => Some((-10, 2)),
        _ => None,
    }
}

/// Hangul fills a part of where Chinese characters are: only text that never leaves it is Korean, and a
/// few characters cannot tell.
fn korean(bytes: &[u8]) -> i32 {
    let (mut at, mut hangul, mut other) = (0, 0, 0);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (0..=0x7F, _) => at += 1,
            (0xB0..=0xC8, Some(0xA1..=0xFE)) => {
                hangul += 1;
                at += 2;
            }
            (0xA1..=0xAF, Some(0xA1..=0xFE)) => at += 2,
            _ => {
                other += 1;
                at += 2;
            }
        }
    }
    if hangul >= 6 && other * 20 <= hangul { 350 } else { -1000 }
}

/// Western text has single bytes above 127 among letters.
fn western(bytes: &[u8]) -> i32 {
    let (mut sum, mut count) = (0, 0);
    for (at, &byte) in bytes.iter().enumerate() {
        if byte.is_ascii() {
            continue;
        }
        count += 1;
        let near = |other: Option<&u8>| other.is_none_or(u8::is_ascii);
        let alone = near(at.checked_sub(1).and_then(|at| bytes.get(at))) && near(bytes.get(at + 1));
        sum += match byte {
            0xC0..=0xFF if alone => 32,
            0xA0..=0xBF if alone => 15,
            0xC0..=0xFF => 0,
            0x80..=0x9F if alone => 5,
            _ => -10,
        };
    }
    if count == 0 { 0 } else { sum * 10 / count }
}

/// HZ (RFC 1843): GB2312 in seven bits between `~{` and `~}`.
fn hz(bytes: &[u8]) -> String {
    let (mut out, mut wide, mut at) = (Vec::with_capacity(bytes.len()), false, 0);
    while at < bytes.len() {
        match (&bytes[at..], wide) {
            ([b'~', b'{', ..], false) => (wide, at) = (true, at + 2),
            ([b'~', b'}', ..], true) => (wide, at) = (false, at + 2),
            ([b'~', b'~', ..], false) => {
                out.push(b'~');
                at += 2;
            }
            ([b'~', b'\n', ..], false) => at += 2,
            ([b'\n', ..], true) => wide = false,
            ([first, second, ..], true) => {
                out.extend([first | 0x80, second | 0x80]);
                at += 2;
            }
            ([byte, ..], _) => {
                out.push(*byte);
                at += 1;
            }
            ([], _) => break,
        }
    }
    GB18030.decode(&out).0.into_owned()
}

/// ISO-2022-JP with every escape that another one follows at once left out: the standard of the web calls
/// such a pair a mistake, and in mail it stands wherever two encoded words or two lines meet.
fn one_escape_at_a_time(bytes: &[u8]) -> Vec<u8> {
    let escape = |at: usize| match bytes.get(at..) {
        Some([0x1b, b'(', b'B' | b'J' | b'I', ..] | [0x1b, b'$', b'@' | b'B', ..]) => Some(3),
        Some([0x1b, b'$', b'(', b'D', ..]) => Some(4),
        _ => None,
    };
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let length = escape(at).unwrap_or(1);
        if length == 1 || escape(at + length).is_none() {
            out.extend_from_slice(&bytes[at..at + length]);
        }
        at += length;
    }
    out
}

/// ISO-2022-KR (RFC 1557): KS X 1001 in seven bits between SO and SI; `ESC $ ) C` stands once before it.
fn iso_2022_kr(bytes: &[u8]) -> String {
    let (mut out, mut wide, mut at) = (Vec::with_capacity(bytes.len()), false, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            0x1b if bytes[at..].starts_with(b"\x1b$)C") => at += 3,
            0x0e => wide = true,
            0x0f => wide = false,
            b'\n' => {
                wide = false;
                out.push(byte);
            }
            byte => out.push(if wide && byte > b' ' { byte | 0x80 } else { byte }),
        }
        at += 1;
    }
    EUC_KR.decode(&out).0.into_owned()
}

/// UTF-7 (RFC 2152): modified base64 of UTF-16 between `+` and `-`.
fn utf7(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'+' {
            out.push(if bytes[at].is_ascii() { bytes[at] as char } else { '\u{fffd}' });
            at += 1;
            continue;
        }
        at += 1;
        let start = at;
        let (mut bits, mut have, mut units) = (0u32, 0, Vec::new());
        while let Some(value) = bytes.get(at).and_then(|&byte| base64_value(byte)) {
            bits = bits << 6 | value;
            have += 6;
            if have >= 16 {
                have -= 16;
                units.push((bits >> have & 0xFFFF) as u16);
            }
            at += 1;
        }
        if at == start && bytes.get(at) == Some(&b'-') {
            out.push('+');
        }
        out.push_str(&String::from_utf16_lossy(&units));
        if bytes.get(at) == Some(&b'-') {
            at += 1;
        }
    }
    out
}

fn base64_value(byte: u8) -> Option<u32> {
    Some(match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use encoding_rs::{KOI8_U, WINDOWS_1253};

    fn bytes(encoding: &'static Encoding, text: &str) -> Vec<u8> {
        encoding.encode(text).0.into_owned()
    }

    #[test]
    fn declared_charsets_are_their_supersets() {
        let gb18030_only = "深圳镕基㐀";
        for (declared, encoding, text) in [
            ("GB2312", GB18030, gb18030_only),
            ("gbk", GB18030, gb18030_only),
            ("\"gb18030\"", GB18030, gb18030_only),
            ("Big5", BIG5, "繁體中文"),
            ("ISO-2022-JP", ISO_2022_JP, "こんにちは"),
            ("shift_jis", SHIFT_JIS, "表示"),
            ("ks_c_5601-1987", EUC_KR, "안녕하세요"),
            ("euc-jp", EUC_JP, "日本語"),
            ("iso-8859-1", WINDOWS_1252, "façade “quoted”"),
            ("utf8", UTF_8, "žluť"),
            ("utf-8*en", UTF_8, "žluť"),
        ] {
            assert_eq!(decode(Some(declared), &bytes(encoding, text)).text, text, "{declared}");
        }
        assert_eq!(decode(Some("utf-7"), b"Hi Mom +Jjo-! +-").text, "Hi Mom \u{263a}! +");
        assert_eq!(decode(Some("hz-gb-2312"), b"ok ~{<:Ky2;~}~~").text, "ok 己所不~");
        assert_eq!(decode(Some("iso-2022-kr"), b"\x1b$)C\n\x0e>H3g\x0f ok\n").text, "\n안녕 ok\n");
        for (bytes, text) in [
            (&b"\x1b$B$3\x1b(B\x1b$B$s\x1b(B end"[..], "こん end"),
            (b"\x1b(B\x1b$B$3\x1b(B\x1b(J\x1b(B end", "こ end"),
            // A flaw is a flaw, and the rest is text all the same.
            (b"\x1b$B$3\xff\x1b(B end", "こ\u{fffd} end"),
        ] {
            assert_eq!(decode(Some("iso-2022-jp"), bytes).text, text);
        }
    }

    #[test]
    fn a_declaration_that_cannot_be_is_not_believed() {
        for (declared, encoding, text) in [
            ("utf-8", GB18030, "您好，这是本月的报告，请查收附件"),
            ("utf-8", GB18030, "发票"),
            ("utf-8", GB18030, "关于发票的通知"),
            ("utf-8", BIG5, "您好，這是本月的報告，請查收附件"),
            ("utf-8", WINDOWS_1252, "grüße naïve façade"),
            ("iso-2022-jp", SHIFT_JIS, "こんにちは、今月の報告書をお送りします"),
            ("gb2312", UTF_8, "您好，这是本月的报告，请查收附件"),
            ("gb2312", UTF_8, "发票"),
            ("iso-8859-1", UTF_8, "Re: 发票"),
            ("big5", UTF_8, "發票"),
        ] {
            assert_eq!(decode(Some(declared), &bytes(encoding, text)).text, text, "{declared}");
        }
        for (bytes, text) in [
            (&b"\xe5\x8f\x91\xe7\xa5"[..], "发\u{fffd}"),
            (b"\xa8\xe5\x8f\x91\xe5\x8f\x91\xe7\xa5", "\u{fffd}发发\u{fffd}"),
            (b"caf\xe9", "caf\u{fffd}"),
        ] {
            assert_eq!(decode(Some("utf-8"), bytes).text, text);
        }
        assert_eq!(decode(Some("iso-2022-cn"), b"\x1b$)A\x0e5g\x0f abc").text, "\u{1b}$)A\u{e}5g\u{f} abc");
    }

    #[test]
    fn undeclared_bytes_are_recognised() {
        for (encoding, text) in [
            (GB18030, "您好，这是本月的报告，请查收附件。谢谢合作"),
            (GB18030, "发票"),
            (GB18030, "发票号 2026-11"),
            (BIG5, "您好，這是本月的報告，請查收附件。謝謝合作"),
            (SHIFT_JIS, "こんにちは、今月の報告書をお送りします。よろしく"),
            (EUC_JP, "こんにちは、今月の報告書をお送りします。よろしく"),
            (EUC_KR, "안녕하세요 이번 달 보고서를 보내 드립니다"),
            (GB18030, "加载中"),
            (GB18030, "推送至"),
            (GB18030, "选项需要"),
            (GB18030, "北马其顿共和国"),
            (GB18030, "张伟 <"),
            (BIG5, "發票"),
            (SHIFT_JIS, "ホーム"),
            (SHIFT_JIS, "入力の型"),
            (EUC_JP, "こんにちは"),
            (WINDOWS_1252, "grüße naïve façade señor"),
            (WINDOWS_1252, "»[«, »[^« oder »[=« ohne schließende Klammer"),
            (WINDOWS_1252, "José Müller"),
            (WINDOWS_1251, "Привет"),
            (WINDOWS_1251, "Счёт на оплату № 11 от 26 ноября"),
            (WINDOWS_1251, "Здравствуйте! Высылаем отчёт за месяц, просим проверить."),
            (KOI8_U, "Здравствуйте! Отчёт за месяц"),
            (WINDOWS_1253, "Καλημέρα σας, σας στέλνουμε την αναφορά"),
            (WINDOWS_1250, "Příliš žluťoučký kůň"),
            (WINDOWS_1254, "Türkçe güneş, İstanbul"),
            (UTF_8, "grüße 報告"),
            (ISO_2022_JP, "こんにちは"),
        ] {
            let encoded = bytes(encoding, text);
            for declared in [None, Some("us-ascii"), Some("unknown-8bit"), Some("x-nonsense")] {
                assert_eq!(decode(declared, &encoded).text, text, "{} {declared:?}", encoding.name());
            }
        }
    }
}
