//! Sizes, durations and rates as a person writes them: `5MB`, `15m`, `14/s`, `1%`.

use std::fmt;
use std::time::Duration;

/// A rate of events: `count` in each `per`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

impl Rate {
    /// Reads `14/s`, `100/m`, `500/h` or `20000/day`.
    pub fn parse(text: &str) -> Option<Rate> {
        let (count, unit) = text.trim().split_once('/')?;
        let count = count.trim().parse().ok().filter(|&count| count > 0)?;
        let per = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3600,
            "d" | "day" => 86_400,
            _ => return None,
        };
        Some(Rate { count, per: Duration::from_secs(per) })
    }

    /// The time between two events at this rate.
    pub fn interval(&self) -> Duration {
        self.per / self.count
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per.as_secs() {
            1 => write!(f, "{}/s", self.count),
            60 => write!(f, "{}/m", self.count),
            3600 => write!(f, "{}/h", self.count),
            86_400 => write!(f, "{}/day", self.count),
            other => write!(f, "{}/{other}s", self.count),
        }
    }
}

/// Reads `90s`, `15m`, `24h`, `30d` or `250ms`; a bare number is not a duration.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        "w" => seconds(7 * 86_400),
        "y" => seconds(365 * 86_400),
        _ => None,
    }
}

/// A number with its thousands apart, as a person reads it: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in seconds as a person says it: `3 s`, `4 min`, `2 h 10 min`, `3 days`.
pub fn duration_words(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A number of bytes, shown as a person reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Reads `500`, `25MB`, `10 MiB`, `2k`.
    pub fn parse(text: &str) -> Option<ByteSize> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "kib" => 1 << 10,
            "m" | "mb" => 1_000_000,
            "mib" => 1 << 20,
            "g" | "gb" => 1_000_000_000,
            "gib" => 1 << 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(ByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["B", "kB", "MB", "GB"] {
            if value < 1000.0 {
                return if unit == "B" { write!(f, "{} B", self.0) } else { write!(f, "{value:.1} {unit}") };
            }
            value /= 1000.0;
        }
        write!(f, "{value:.1} TB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, expected) in [
            ("15m", Some(Duration::from_secs(900))),
            ("250ms", Some(Duration::from_millis(250))),
            ("24h", Some(Duration::from_secs(86_400))),
            ("15", None),
            ("m", None),
            ("", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn rates_name_their_unit() {
        assert_eq!(Rate::parse("14/s"), Some(Rate { count: 14, per: Duration::from_secs(1) }));
        assert_eq!(Rate::parse("0/s"), None);
        assert_eq!(Rate::parse("14"), None);
        assert_eq!(Rate::parse("20000/day").map(|r| r.to_string()).as_deref(), Some("20000/day"));
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(ByteSize::parse("25MB"), Some(ByteSize(25_000_000)));
        assert_eq!(ByteSize::parse("10 MiB"), Some(ByteSize(10 << 20)));
        assert_eq!(ByteSize(1_400_000).to_string(), "1.4 MB");
        assert_eq!(ByteSize(999).to_string(), "999 B");
    }
}
