//! A cell of its column's kind, from its text.

use serde_json::Value as Json;

use crate::job::ColumnKind;
use crate::letter::Cell;
use crate::mail;

/// The most of a cell that a message shows: enough to find it, too little to fill a report.
const SHOWN: usize = 40;

/// Reads a cell. An empty cell of a column that is not text is [`Cell::Null`]: there is no
/// number or date that it could stand for. The error is a reason without the column's name.
pub(super) fn read(text: &str, kind: ColumnKind) -> Result<Cell, String> {
    let trimmed = match kind {
        ColumnKind::Text => return Ok(Cell::Text(text.to_owned())),
        _ => text.trim(),
    };
    if trimmed.is_empty() {
        return Ok(Cell::Null);
    }
    let cell = match kind {
        ColumnKind::Text => None,
        ColumnKind::Bool => truth(trimmed).map(Cell::Bool),
        ColumnKind::Number | ColumnKind::Int if loses_digits(trimmed) => {
            return Err("has more digits than a number keeps: say `text` for its column".to_owned());
        }
        ColumnKind::Int => trimmed.parse().ok().map(Cell::Int),
        ColumnKind::Number => number(trimmed),
        ColumnKind::Date => date(trimmed).map(Cell::Date),
        ColumnKind::Json => {
            return serde_json::from_str(trimmed).map_err(|_| not(text, kind)).and_then(of_json);
        }
    };
    cell.ok_or_else(|| not(text, kind))
}

/// A JSON value as a cell.
pub(super) fn of_json(json: Json) -> Result<Cell, String> {
    Ok(match json {
        Json::Null => Cell::Null,
        Json::Bool(truth) => Cell::Bool(truth),
        Json::String(text) => Cell::Text(text),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Cell::Int(int),
            (None, Some(float)) if !number.is_u64() => float_cell(float)?,
            _ => Cell::Nested(Json::Number(number)),
        },
        nested => Cell::Nested(nested),
    })
}

/// A number of a JSON or YAML source that is not whole or does not fit 64 bits. A whole number
/// that was too long has lost its last digits by now; an account number must not change so.
pub(super) fn float_cell(float: f64) -> Result<Cell, String> {
    /// The least integer that 64 bits do not hold.
    const TOO_LONG: f64 = 9_223_372_036_854_775_808.0;
    if !float.is_finite() {
        return Err("is not a finite number".to_owned());
    }
    if float.abs() >= TOO_LONG && float.fract() == 0.0 {
        return Err("has more digits than a number keeps: write it as text, in quotes".to_owned());
    }
    Ok(Cell::Float(float))
}

/// Cuts what a message shows of a list to one short line.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text
        .trim()
        .chars()
        .take(SHOWN)
        .map(|c| if mail::acts_on_terminals(c) { '\u{FFFD}' } else { c })
        .collect();
    if text.trim().chars().count() > SHOWN {
        short.push('…');
    }
    short
}

fn not(text: &str, kind: ColumnKind) -> String {
    let digits = |sign: char| {
        let other = text.trim().replace(sign, "");
        !other.is_empty()
            && other.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'))
    };
    let (what, help) = match kind {
        ColumnKind::Text => ("text", ""),
        ColumnKind::Bool => ("yes, no, true, false, 1, 0, 是 or 否", ""),
        ColumnKind::Int if number(text.trim()).is_some() => {
            ("a whole number", ": say `number` for its column")
        }
        ColumnKind::Int | ColumnKind::Number => (
            if kind == ColumnKind::Int { "a whole number" } else { "a number" },
            match () {
                () if digits(',') => ": write it without a comma; 1234.5, not 1,234.5 or 1234,5",
                () if digits('\'') || digits(' ') || digits('\u{A0}') || digits('，') => {
                    ": write it without thousands separators"
                }
                () => "",
            },
        ),
        ColumnKind::Date => ("a date as 2026-11-23, 2026/11/23 or 2026年11月23日", ""),
        ColumnKind::Json => ("JSON", ""),
    };
    format!("`{}` is not {what}{help}", shown(text))
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "是" => Some(true),
        "0" | "否" => Some(false),
        _ if ["yes", "true"].iter().any(|word| text.eq_ignore_ascii_case(word)) => Some(true),
        _ if ["no", "false"].iter().any(|word| text.eq_ignore_ascii_case(word)) => Some(false),
        _ => None,
    }
}

/// Digits with a sign, one point, an exponent: what Rust reads, without its `inf` and `nan`.
/// What is written as a whole number stays one, so that it prints as it was written.
fn number(text: &str) -> Option<Cell> {
    if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E')) {
        return None;
    }
    if let Ok(int) = text.parse() {
        return Some(Cell::Int(int));
    }
    text.parse().ok().filter(|float: &f64| float.is_finite()).map(Cell::Float)
}

/// Whether a number would print with other digits than it was written with. Fifteen are always kept;
/// of more, an account number must not lose the last.
fn loses_digits(text: &str) -> bool {
    /// `f64::DIGITS`: so many decimal digits come back whatever they are.
    const ALWAYS_KEPT: usize = 15;
    let Some(Cell::Float(float)) = number(text) else { return false };
    let written = digits(text);
    written.len() > ALWAYS_KEPT && written != digits(&format!("{float:e}"))
}

/// The digits of a number from the first to the last that is not zero.
fn digits(text: &str) -> String {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

/// `2026-11-23`, `2026/11/23` and `2026年11月23日`; month and day may have one digit.
fn date(text: &str) -> Option<jiff::civil::Date> {
    let (year, rest) = text.split_at_checked(4)?;
    let (month, day) = match rest.strip_prefix('年') {
        Some(rest) => rest.strip_suffix('日')?.split_once('月')?,
        None => {
            let sign = if rest.starts_with('-') { '-' } else { '/' };
            rest.strip_prefix(sign)?.split_once(sign)?
        }
    };
    let digits = |text: &str, most: usize| {
        (text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<i16>().ok())?
    };
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    jiff::civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_of_their_kind_or_refused() {
        let day = || Ok(Cell::Date(jiff::civil::date(2026, 11, 3)));
        use ColumnKind::*;
        for (kind, text, expected) in [
            (Text, " as it stands ", Ok(Cell::Text(" as it stands ".into()))),
            (Text, "", Ok(Cell::Text(String::new()))),
            (Bool, "YES", Ok(Cell::Bool(true))),
            (Bool, " true ", Ok(Cell::Bool(true))),
            (Bool, "1", Ok(Cell::Bool(true))),
            (Bool, "是", Ok(Cell::Bool(true))),
            (Bool, "No", Ok(Cell::Bool(false))),
            (Bool, "false", Ok(Cell::Bool(false))),
            (Bool, "0", Ok(Cell::Bool(false))),
            (Bool, "否", Ok(Cell::Bool(false))),
            (Bool, "", Ok(Cell::Null)),
            (Bool, "maybe", Err("`maybe` is not yes, no")),
            (Bool, "2", Err("is not yes, no")),
            (Int, "-42", Ok(Cell::Int(-42))),
            (Int, "007", Ok(Cell::Int(7))),
            (Int, " ", Ok(Cell::Null)),
            (Int, "1,234", Err("without a comma")),
            (Int, "1 234", Err("thousands separators")),
            (Int, "1.5", Err("say `number`")),
            (Int, "99999999999999999999", Err("has more digits than a number keeps: say `text`")),
            (Number, "12.50", Ok(Cell::Float(12.5))),
            (Number, "100", Ok(Cell::Int(100))),
            (Number, "-1e-3", Ok(Cell::Float(-0.001))),
            (Number, "0.1", Ok(Cell::Float(0.1))),
            (Number, "1234.56", Ok(Cell::Float(1234.56))),
            (Number, "0.30000000000000004", Ok(Cell::Float(0.1 + 0.2))),
            (Number, "1.50000000000000000000", Ok(Cell::Float(1.5))),
            (Number, "-0.000123456789012345", Ok(Cell::Float(-0.000_123_456_789_012_345))),
            (Number, "9007199254740993", Ok(Cell::Int(9_007_199_254_740_993))),
            (Number, "9007199254740993.5", Err("has more digits than a number keeps: say `text`")),
            (Number, "12345678901234567890", Err("has more digits")),
            (Number, "-1.2345678901234567890e19", Err("has more digits")),
            (Number, "0.12345678901234567890", Err("has more digits")),
            (Number, "1,234.50", Err("without a comma")),
            (Number, "12,5", Err("without a comma")),
            (Number, "1'234", Err("thousands separators")),
            (Number, "inf", Err("`inf` is not a number")),
            (Number, "NaN", Err("is not a number")),
            (Number, "1e999", Err("is not a number")),
            (Number, "¥12", Err("`¥12` is not a number")),
            (Number, "12%", Err("`12%` is not a number")),
            (Date, "2026-11-03", day()),
            (Date, "2026/11/3", day()),
            (Date, "2026年11月3日", day()),
            (Date, "2026年11月03日", day()),
            (Date, "", Ok(Cell::Null)),
            (Date, "2026-02-30", Err("is not a date as 2026-11-23")),
            (Date, "2026-11/03", Err("is not a date")),
            (Date, "03.11.2026", Err("is not a date")),
            (Date, "11/03/2026", Err("is not a date")),
            (Date, "2026年11月3", Err("is not a date")),
            (Date, "年月日", Err("is not a date")),
            (Date, "2026-11-03T10:00", Err("is not a date")),
            (Json, "[1, {\"a\": null}]", Ok(Cell::Nested(json!([1, {"a": null}])))),
            (Json, "\"x\"", Ok(Cell::Text("x".into()))),
            (Json, "12", Ok(Cell::Int(12))),
            (Json, "18446744073709551615", Ok(Cell::Nested(json!(u64::MAX)))),
            (Json, "123456789012345678901234567890", Err("has more digits")),
            (Json, "null", Ok(Cell::Null)),
            (Json, "{", Err("`{` is not JSON")),
        ] {
            match (read(text, kind), expected) {
                (Ok(cell), Ok(expected)) => assert_eq!(cell, expected, "{text}"),
                (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{text}: {reason}"),
                (cell, expected) => panic!("{text}: {cell:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn messages_stay_short_and_on_one_line() {
        assert_eq!(shown("a\r\nb"), "a\u{FFFD}\u{FFFD}b");
        assert_eq!(shown(&"字".repeat(41)), format!("{}…", "字".repeat(40)));
    }
}
