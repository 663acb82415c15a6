//! Dates of messages, read leniently (RFC 5322 §3.3 and §4.3, and what is met besides).

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Seconds since 1970 in UTC, or nothing when no moment can be made of the text. Comments are passed
/// over, a weekday is not believed, a missing or unknown zone is UTC (RFC 5322 §4.3 says so of -0000).
pub fn date(text: &[u8]) -> Option<i64> {
    let text = without_comments(text);
    let text = text.replace(',', " ");
    let mut words = text.split_ascii_whitespace().peekable();
    // In whatever language and charset: 星期一.
    if !words.peek()?.bytes().any(|byte| byte.is_ascii_digit()) {
        words.next();
    }
    // `24-Nov-2026` is met in place of `24 Nov 2026`.
    let mut day = Vec::with_capacity(3);
    while day.len() < 3 {
        day.extend(words.next()?.split('-').filter(|word| !word.is_empty()).map(str::to_owned));
    }
    let (day, month, year) = match day.as_slice() {
        // `2026-11-24` of scripts.
        [year, month, day, ..] if year.len() == 4 => (day, month.parse().ok()?, year),
        [day, month, year, ..] => (day, month_number(month)?, year),
        _ => return None,
    };
    let day: i8 = day.parse().ok()?;
    let written = year.len();
    let year: i16 = year.parse().ok()?;
    let year = match (written, year) {
        (2, 0..=49) => year + 2000,
        (2 | 3, _) => year + 1900,
        _ => year,
    };
    let mut time = words.next().unwrap_or("00:00").split([':', '.']);
    let hour: i8 = time.next()?.parse().ok()?;
    let minute: i8 = time.next()?.parse().ok()?;
    let second: i8 = time.next().map_or(Some(0), |second| second.parse().ok())?;
    let civil = DateTime::new(year, month, day, hour, minute, second.min(59), 0).ok()?;
    let utc = TimeZone::UTC.to_timestamp(civil).ok()?.as_second();
    Some(utc - words.next().map_or(0, zone_seconds))
}

fn without_comments(text: &[u8]) -> String {
    let mut depth = 0usize;
    let mut escaped = false;
    let mut out = String::with_capacity(text.len().min(128));
    for &byte in text.iter().take(MAX_DATE) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if depth > 0 => escaped = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            b'\r' | b'\n' | b'\t' => out.push(' '),
            _ if byte.is_ascii() => out.push(byte as char),
            _ => out.push('?'),
        }
    }
    out
}

/// No date with all its comments is longer.
const MAX_DATE: usize = 1024;

fn month_number(word: &str) -> Option<i8> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let word = word.get(..3)?.to_ascii_lowercase();
    MONTHS.iter().zip(1..).find(|(month, _)| **month == word).map(|(_, number)| number)
}

/// Seconds east of Greenwich.
fn zone_seconds(word: &str) -> i64 {
    let hours = match word.to_ascii_uppercase().as_str() {
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        _ => 0,
    };
    let Some((sign, digits)) = word.split_at_checked(1) else { return 0 };
    let sign = match sign {
        "+" => 1,
        "-" => -1,
        _ => return hours * 3600,
    };
    let digits = digits.replace(':', "");
    match digits.parse::<i64>() {
        Ok(number) if digits.len() == 4 => sign * (number / 100 * 3600 + number % 100 * 60),
        Ok(number) if digits.len() <= 2 => sign * number * 3600,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_read_as_people_and_programs_write_them() {
        for (text, expected) in [
            ("Mon, 23 Nov 2026 12:00:00 +0000", Some("2026-11-23T12:00:00Z")),
            (" 23 Nov 2026 20:00 +0800 (CST)", Some("2026-11-23T12:00:00Z")),
            ("Mon,23 Nov 2026 07:00:00 EST", Some("2026-11-23T12:00:00Z")),
            ("23 Nov 99 12:00:00 GMT", Some("1999-11-23T12:00:00Z")),
            ("23 November 2026 12:00:60 -0000", Some("2026-11-23T12:00:59Z")),
            ("(a (nested) comment) 23 Nov 2026 12:00:00 +0000", Some("2026-11-23T12:00:00Z")),
            ("Mon, 23-Nov-2026 12:00:00 +0130", Some("2026-11-23T10:30:00Z")),
            ("Mon, 23 Nov 2026", Some("2026-11-23T00:00:00Z")),
            ("星期一, 23 Nov 2026 20:00:00 +0800", Some("2026-11-23T12:00:00Z")),
            ("2026-11-23 20:00:00 +0800", Some("2026-11-23T12:00:00Z")),
            ("31 Feb 2026 12:00:00 +0000", None),
            ("yesterday", None),
            ("", None),
            ("23 Nov", None),
            ("99999 Nov 2026 12:00:00", None),
        ] {
            let expected = expected.map(|text| text.parse::<jiff::Timestamp>().unwrap().as_second());
            assert_eq!(date(text.as_bytes()), expected, "{text:?}");
        }
    }
}
