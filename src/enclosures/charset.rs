//! The charset that an attached text is declared in. A recipient's program believes what is declared, so
//! where the bytes do not tell, nothing is said: then it guesses for itself.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_2022_JP, KOI8_U, SHIFT_JIS, UTF_8, WINDOWS_1252,
};

/// So much of a text, from its first octet beyond ASCII on, is looked at by the detector.
const SAMPLE: usize = 64 << 10;

/// With fewer octets beyond ASCII the detector takes one alphabet of single octets for another.
const FEWEST_OF_AN_ALPHABET: usize = 4;

/// With fewer characters of two octets Chinese cannot be told from Korean, and from Japanese without kana.
const FEWEST_OF_EAST_ASIA: usize = 8;

/// The charset of a text: by its byte order mark, as UTF-8 if it is that, else as the detector says, where
/// it has enough to go by. `None` where it is no text at all.
pub(super) fn charset(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => return Some("utf-8"),
        // Before UTF-16: its mark begins this one.
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some("utf-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("utf-16"),
        _ => {}
    }
    if bytes.contains(&0) {
        return None;
    }
    if std::str::from_utf8(bytes).is_ok() && !bytes.contains(&0x1b) {
        return Some("utf-8");
    }
    let encoding = detected(bytes)?;
    encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
    Some(match encoding {
        encoding if encoding == UTF_8 => "utf-8",
        encoding if encoding == GBK || encoding == GB18030 => "gb18030",
        encoding if encoding == BIG5 => "big5",
        encoding if encoding == SHIFT_JIS => "shift_jis",
        encoding if encoding == EUC_JP => "euc-jp",
        encoding if encoding == EUC_KR => "euc-kr",
        encoding if encoding == ISO_2022_JP => "iso-2022-jp",
        // The same for Russian, by the name that is better known.
        encoding if encoding == KOI8_U && !bytes.iter().any(is_ukrainian_in_koi8) => "koi8-r",
        encoding if encoding == KOI8_U => "koi8-u",
        encoding if encoding == WINDOWS_1252 => {
            // Five octets are nothing in windows-1252, and the standard of the web takes them for controls.
            let undefined = |b: &u8| matches!(b, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d);
            return (!bytes.iter().any(undefined)).then_some("windows-1252");
        }
        alphabet => return ALPHABETS.into_iter().find(|name| name.eq_ignore_ascii_case(alphabet.name())),
    })
}

/// The alphabets of single octets that mail is written in.
const ALPHABETS: [&str; 15] = [
    "windows-874",
    "windows-1250",
    "windows-1251",
    "windows-1253",
    "windows-1254",
    "windows-1255",
    "windows-1256",
    "windows-1257",
    "windows-1258",
    "iso-8859-2",
    "iso-8859-4",
    "iso-8859-5",
    "iso-8859-6",
    "iso-8859-7",
    "ibm866",
];

fn detected(bytes: &[u8]) -> Option<&'static Encoding> {
    let first = bytes.iter().position(|byte| !byte.is_ascii() || *byte == 0x1b)?;
    // The word it stands in is part of what it says.
    let start = bytes[..first].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let start = start.max(first.saturating_sub(SAMPLE / 2));
    let sample = &bytes[start..bytes.len().min(start + SAMPLE)];
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(sample, start + sample.len() == bytes.len());
    let guess = detector.guess(None, Utf8Detection::Allow);
    let chinese = Chinese::of(sample);
    let east_asian = [GBK, BIG5, SHIFT_JIS, EUC_JP, EUC_KR].contains(&guess);
    let beyond_ascii = sample.iter().filter(|byte| !byte.is_ascii()).count();
    if guess == EUC_JP || guess == EUC_KR {
        // A name or a line: far more often it is Chinese, to those who write with this program.
        let weak = chinese.is_usual() && chinese.all < FEWEST_OF_EAST_ASIA;
        return Some(if weak { GB18030 } else { guess });
    }
    if guess == WINDOWS_1252 {
        return match chinese.is_everyday() {
            // One character could be two letters as well.
            true => (chinese.all > 1).then_some(GB18030),
            false => Some(guess),
        };
    }
    if !east_asian && chinese.is_everyday() && chinese.all > 1 && chinese.wide {
        return Some(GB18030);
    }
    let least = if east_asian { 3 } else { FEWEST_OF_AN_ALPHABET };
    (guess == GBK || guess == ISO_2022_JP || beyond_ascii >= least).then_some(guess)
}

/// What a text would be in GBK: how many characters of two octets, and how many of them from the old table
/// that everybody writes with.
#[derive(Default)]
struct Chinese {
    all: usize,
    /// Punctuation, and the characters that are used every day.
    everyday: usize,
    /// The other characters of the old table. Western letters fall there: `öß`.
    seldom: usize,
    /// There is a second octet where Cyrillic letters of one case never are.
    wide: bool,
}

impl Chinese {
    fn of(bytes: &[u8]) -> Chinese {
        let mut found = Chinese::default();
        let mut at = 0;
        while let Some(&lead) = bytes.get(at) {
            if lead < 0x80 {
                at += 1;
                continue;
            }
            let trail = bytes.get(at + 1).copied().unwrap_or_default();
            found.all += 1;
            found.everyday += usize::from(matches!(lead, 0xa1..=0xa3 | 0xb0..=0xd7) && trail >= 0xa1);
            found.seldom += usize::from(matches!(lead, 0xd8..=0xf7) && trail >= 0xa1);
            found.wide |= trail >= 0xa1 && !(0xc0..=0xdf).contains(&trail);
            at += if trail.is_ascii_digit() { 4 } else { 2 };
        }
        found
    }

    /// Nine in ten are characters that are met.
    fn is_usual(&self) -> bool {
        self.all > 0 && (self.everyday + self.seldom) * 10 >= self.all * 9
    }

    /// Nine in ten are characters of every day.
    fn is_everyday(&self) -> bool {
        self.all > 0 && self.everyday * 10 >= self.all * 9
    }
}

/// Letters that KOI8-U has where KOI8-R draws boxes.
fn is_ukrainian_in_koi8(byte: &u8) -> bool {
    matches!(byte, 0xa4 | 0xa6 | 0xa7 | 0xad | 0xae | 0xb4 | 0xb6 | 0xb7 | 0xbd | 0xbe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use encoding_rs::{KOI8_R, WINDOWS_1250, WINDOWS_1251, WINDOWS_1253, WINDOWS_1254};

    #[test]
    fn a_text_is_declared_in_its_charset_or_in_none() {
        for (encoding, expected, texts) in [
            (
                GBK,
                Some("gb18030"),
                &[
                    "张伟",
                    "发票",
                    "您好",
                    "李娜",
                    "刘洋 经理",
                    "已付款",
                    "合同.pdf\r\n",
                    "尊敬的客户",
                    "附件：发票一张",
                    "姓名,城市\r\n张伟,北京\r\n",
                    "李娜,13800000000\r\n",
                    "订单号：2026-11",
                    "价格：￥100",
                    "编号;名称;数量\r\n1;裤子;3\r\n",
                    "深圳镕基",
                    "2026年11月报表",
                    "金额（元）",
                    "陈静\r\n杨洋\r\n赵磊\r\n黄敏\r\n周杰\r\n吴芳\r\n",
                    "您好，这是本月的经营分析报告，请查收附件。谢谢合作！",
                    "上海市浦东新区世纪大道100号",
                ][..],
            ),
            (
                BIG5,
                Some("big5"),
                &["張偉", "發票", "繁體中文", "姓名,城市\r\n張偉,台北\r\n", "您好，這是本月的報告"],
            ),
            (SHIFT_JIS, Some("shift_jis"), &["日本", "こんにちは", "商品;サイズ\r\nズボン;M\r\n", "請求書"]),
            (EUC_JP, Some("euc-jp"), &["こんにちは", "商品;サイズ\r\nズボン;M\r\n"]),
            (
                EUC_KR,
                Some("euc-kr"),
                &["안녕하세요 이번 달 보고서", "이름,도시\r\n김철수,서울\r\n박영희,부산\r\n"],
            ),
            (ISO_2022_JP, Some("iso-2022-jp"), &["こんにちは"]),
            (
                WINDOWS_1251,
                Some("windows-1251"),
                &["Привет", "Иванов", "МОСКВА", "Имя;Город\r\nИван;Москва\r\n"],
            ),
            (
                KOI8_R,
                Some("koi8-r"),
                &["Привет", "Иванов", "привет, как дела", "Имя;Город\r\nИван;Москва\r\n"],
            ),
            (KOI8_U, Some("koi8-u"), &["Привіт, Київ і Львів"]),
            (
                WINDOWS_1252,
                Some("windows-1252"),
                &[
                    "Artikel;Größe\r\nHose;M\r\n",
                    "Grüße aus Köln",
                    "Straße",
                    "Übergröße",
                    "Café",
                    "déjà vu",
                    "François a payé 10 €",
                    "El Niño",
                    "“quoted”",
                    "it’s",
                ],
            ),
            (WINDOWS_1250, Some("windows-1250"), &["Příliš žluťoučký kůň", "Zażółć gęślą jaźń"]),
            (WINDOWS_1253, Some("windows-1253"), &["Καλημέρα"]),
            (WINDOWS_1254, Some("windows-1254"), &["Türkçe güneş, İstanbul"]),
            // So few octets are those of many alphabets.
            (GBK, None, &["，", "王", "是", "Ada;张;"]),
            (WINDOWS_1251, None, &["Да"]),
            (WINDOWS_1254, None, &["İstanbul"]),
            (UTF_8, Some("utf-8"), &["plain", "", "Größe 报告"]),
        ] {
            for text in texts {
                let bytes = encoding.encode(text).0;
                assert_eq!(charset(&bytes), expected, "{text:?} in {}", encoding.name());
            }
        }
        let utf16: Vec<u8> = "Größe\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf32: Vec<u8> = "Größe\r\n".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        for (start, rest, expected) in [
            (&b"\xff\xfe"[..], &utf16, Some("utf-16")),
            (b"", &utf16, None),
            (b"\xff\xfe\0\0", &utf32, Some("utf-32")),
            (b"\0\0\xfe\xff", &utf32, Some("utf-32")),
            (b"", &utf32, None),
            (b"\xef\xbb\xbf", &b"a".to_vec(), Some("utf-8")),
            (b"\x81\x8d \xff", &Vec::new(), None),
        ] {
            assert_eq!(charset(&[start, rest].concat()), expected, "{start:?}");
        }
        // What tells comes late.
        let late = [&b"a;b\r\n".repeat(40_000)[..], &WINDOWS_1251.encode("Имя;Город\r\n").0].concat();
        assert_eq!(charset(&late), Some("windows-1251"));
    }
}
