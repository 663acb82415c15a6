//! Text for a terminal: aligned, cut, and without anything that would move its cursor.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::mail::acts_on_terminals;

/// Text as it may be shown. What a server or a list wrote must not be able to move the cursor, colour
/// the terminal or turn the direction of what follows.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if acts_on_terminals(c) { '\u{fffd}' } else { c }).collect()
}

/// Text, and blanks up to `width` columns; a Chinese character takes two.
pub(super) fn left(text: &str, width: usize) -> String {
    format!("{text}{}", blanks(text, width))
}

/// Blanks up to `width` columns, and text.
pub(super) fn right(text: &str, width: usize) -> String {
    format!("{}{text}", blanks(text, width))
}

/// The columns a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Text of at most `width` columns; of a longer one the beginning and `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let kept: String = text
        .chars()
        .take_while(|c| {
            taken += c.width().unwrap_or(0);
            taken < width
        })
        .collect();
    kept + "…"
}

/// The time zone of this name; UTC where the system does not know it.
pub(super) fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

/// `2026-11-23 12:30` as the wall clock of a zone shows it.
pub(super) fn clock(unix: i64, zone: &TimeZone) -> String {
    time(unix, zone, "%Y-%m-%d %H:%M")
}

/// `2026-11-23T12:30:00+08:00` (RFC 3339).
pub(super) fn rfc3339(unix: i64, zone: &TimeZone) -> String {
    time(unix, zone, "%Y-%m-%dT%H:%M:%S%:z")
}

/// [`rfc3339`] for a long list, whose neighbours mostly have the same second.
pub(super) struct Clock {
    zone: TimeZone,
    last: Option<(i64, String)>,
}

impl Clock {
    pub(super) fn new(zone: TimeZone) -> Clock {
        Clock { zone, last: None }
    }

    pub(super) fn rfc3339(&mut self, unix: i64) -> &str {
        if self.last.as_ref().is_none_or(|(last, _)| *last != unix) {
            self.last = Some((unix, rfc3339(unix, &self.zone)));
        }
        self.last.as_ref().map_or("", |(_, text)| text)
    }
}

/// A domain as people write it: `例子.中国` for `xn--fsqu00a.xn--fiqs8s`.
pub(super) fn domain(domain: &str) -> String {
    match idna::domain_to_unicode(domain) {
        (unicode, Ok(())) => unicode,
        _ => domain.to_owned(),
    }
}

fn time(unix: i64, zone: &TimeZone, form: &str) -> String {
    match Timestamp::from_second(unix) {
        Ok(moment) => moment.to_zoned_datetime(zone.clone()).strftime(form).to_string(),
        // Outside the calendar: show the number rather than nothing.
        Err(_) => unix.to_string(),
    }
}

fn blanks(text: &str, width: usize) -> String {
    " ".repeat(width.saturating_sub(text.width()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_is_aligned_and_cut_by_columns() {
        assert_eq!(left("张伟", 6), "张伟  ");
        assert_eq!(right("12", 4), "  12");
        for (text, width, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("张伟张伟", 5, "张伟…"),
            ("张伟张伟", 4, "张…"),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text, width), expected, "{text} {width}");
        }
    }

    #[test]
    fn domains_are_shown_as_people_write_them() {
        for (wire, shown) in [
            ("xn--fsqu00a.xn--fiqs8s", "例子.中国"),
            ("example.org", "example.org"),
            ("xn--a.org", "xn--a.org"),
        ] {
            assert_eq!(domain(wire), shown);
        }
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(
            plain("550 \u{1b}[2Jno\r\nuser\u{202e}x"),
            "550 \u{fffd}[2Jno\u{fffd}\u{fffd}user\u{fffd}x"
        );
    }

    #[test]
    fn times_are_those_of_the_zone() {
        assert_eq!(rfc3339(1_795_400_000, &TimeZone::UTC), "2026-11-23T02:13:20+00:00");
        let mut clocked = Clock::new(TimeZone::UTC);
        for at in [1_795_400_000, 1_795_400_000, 1_795_400_001] {
            assert_eq!(clocked.rfc3339(at), rfc3339(at, &TimeZone::UTC));
        }
        assert_eq!(clock(1_795_400_000, &zone("Nowhere/Else")), "2026-11-23 02:13");
    }
}
