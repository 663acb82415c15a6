//! Dates as mail writes them (RFC 5322 §3.3).

use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Mon, 23 Nov 2026 12:30:00 +0800`: a moment, in seconds since 1970 UTC, as the wall clock of a
/// time zone shows it. A moment outside the years 0 to 9999, which mail cannot write, becomes the
/// nearest that it can.
pub fn rfc5322(unix: i64, zone: &TimeZone) -> String {
    const FIRST: i64 = -62_135_510_400; // 0001-01-02, so that no offset leads out of the calendar
    const LAST: i64 = 253_402_207_200; // 9999-12-30
    let moment = Timestamp::from_second(unix.clamp(FIRST, LAST)).unwrap_or(Timestamp::UNIX_EPOCH);
    let offset = zone.to_offset(moment);
    let civil = offset.to_datetime(moment);
    // Minutes are all that the zone of RFC 5322 can say; old local mean times have seconds too.
    let minutes = offset.seconds() / 60;
    let (sign, minutes) = if minutes < 0 { ('-', -minutes) } else { ('+', minutes) };
    let day = DAYS[usize::from(civil.weekday().to_monday_zero_offset().unsigned_abs() % 7)];
    let month = MONTHS[usize::from(civil.month().unsigned_abs().clamp(1, 12) - 1)];
    format!(
        "{day}, {:02} {month} {:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
        civil.day(),
        civil.year(),
        civil.hour(),
        civil.minute(),
        civil.second(),
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_its_zone_shows_it() {
        for (unix, zone, expected) in [
            (1_795_437_000, "Asia/Shanghai", "Mon, 23 Nov 2026 20:30:00 +0800"),
            (1_795_437_000, "America/New_York", "Mon, 23 Nov 2026 07:30:00 -0500"),
            (1_795_437_000, "Asia/Kolkata", "Mon, 23 Nov 2026 18:00:00 +0530"),
            (1_795_437_000, "UTC", "Mon, 23 Nov 2026 12:30:00 +0000"),
            (0, "UTC", "Thu, 01 Jan 1970 00:00:00 +0000"),
            (i64::MAX, "UTC", "Thu, 30 Dec 9999 22:00:00 +0000"),
            (i64::MIN, "UTC", "Tue, 02 Jan 0001 00:00:00 +0000"),
        ] {
            let zone = TimeZone::get(zone).expect(zone);
            assert_eq!(rfc5322(unix, &zone), expected);
        }
    }
}
