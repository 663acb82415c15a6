//! Filters for dates, numbers and money, as English, Chinese, German and French readers write them.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, ZonedDateTime};
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::engine::finish;
use super::value::Moment;

/// The filters that are ours, for "did you mean".
pub(super) const OURS: [&str; 11] = [
    "date",
    "number",
    "money",
    "ordinal",
    "spell",
    "cn_number",
    "cn_money",
    "cn_date",
    "urlencode",
    "escape",
    "e",
];

/// What a filter that others have is called here.
pub(super) fn called_here(name: &str) -> Option<&'static str> {
    match name {
        "strftime" | "dateformat" | "date_format" | "datetime" | "format_date" => Some("date"),
        "currency" | "format_currency" => Some("money"),
        "intcomma" | "number_format" | "format_number" => Some("number"),
        _ => None,
    }
}

/// Adds them to an environment.
pub(super) fn add_to(env: &mut Environment<'static>) {
    env.add_filter("date", date);
    env.add_filter("number", number);
    env.add_filter("money", money);
    env.add_filter("ordinal", ordinal);
    env.add_filter("spell", spell);
    env.add_filter("cn_number", cn_number);
    env.add_filter("cn_money", cn_money);
    env.add_filter("cn_date", cn_date);
    env.add_filter("urlencode", urlencode);
    env.add_filter("default", default);
    env.add_filter("d", default);
}

fn mistake(text: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// `default`: what stands for a value that is missing or null, which Jinja's own leaves null; with
/// `true` behind it, for one that is empty or false too.
fn default(value: &Value, other: Option<Value>, empty: Option<bool>) -> Value {
    let missing = value.is_undefined() || value.is_none() || (empty == Some(true) && !value.is_true());
    if missing { other.unwrap_or_else(|| Value::from("")) } else { value.clone() }
}

// ---- dates ----

/// `date`: a date cell, ISO text, `now`, or seconds since 1970, written as `format` says: the signs
/// of strftime (`"%Y年%m月%d日"`), or `iso`, `short`, `long`, `full`; `locale` is en, zh, de or fr.
fn date(state: &State, value: &Value, format: Option<&str>, kwargs: Kwargs) -> Result<String, Error> {
    let locale = locale(kwargs.get::<Option<&str>>("locale")?)?;
    finish(&kwargs)?;
    let when = moment(state, value)?;
    Ok(match format.unwrap_or("long") {
        "iso" => when.civil.date().to_string(),
        "short" => locale.short_date(when.civil.date()),
        "long" => locale.long_date(when.civil.date()),
        "full" => locale.full_date(when.civil.date()),
        format if format.contains('%') => when.strftime(format)?,
        // Java's yyyy-MM-dd and the like: everybody would get these letters.
        format => {
            return Err(mistake(format!(
                "`date` cannot write `{format}`: it takes \"%Y-%m-%d\" and the like, or iso, short, long, full"
            )));
        }
    })
}

/// A moment that is at least a date; the zone is known for `now` and for texts that name one.
struct When {
    civil: DateTime,
    zoned: Option<ZonedDateTime>,
}

impl When {
    fn strftime(&self, format: &str) -> Result<String, Error> {
        let mut out = String::new();
        let written = match &self.zoned {
            Some(zoned) => jiff::fmt::strtime::BrokenDownTime::from(zoned).format(format, &mut out),
            None => jiff::fmt::strtime::BrokenDownTime::from(self.civil).format(format, &mut out),
        };
        written.map_err(|error| mistake(format!("`date` cannot write `{format}`: {error}")))?;
        Ok(out)
    }
}

fn moment(state: &State, value: &Value) -> Result<When, Error> {
    if let Some(moment) = value.downcast_object_ref::<Moment>() {
        return Ok(match moment {
            Moment::Day(date) => When { civil: date.at(0, 0, 0, 0), zoned: None },
            Moment::Instant(zoned) => When { civil: zoned.datetime(), zoned: Some((**zoned).clone()) },
        });
    }
    let none = || mistake("`date` is given neither a date, nor text like 2026-11-23, nor seconds since 1970");
    if let Some(text) = value.as_str() {
        return from_text(text.trim()).ok_or_else(none);
    }
    let seconds = value.as_i64().filter(|_| value.kind() == ValueKind::Number).ok_or_else(none)?;
    let moment = Timestamp::from_second(seconds).map_err(|_| none())?;
    // The zone of the job is that of its `now`.
    let zone = state.lookup("now").and_then(|now| match now.downcast_object_ref::<Moment>() {
        Some(Moment::Instant(zoned)) => Some(zoned.time_zone().clone()),
        _ => None,
    });
    let zoned = moment.to_zoned_datetime(zone.unwrap_or(jiff::tz::TimeZone::UTC));
    Ok(When { civil: zoned.datetime(), zoned: Some(zoned) })
}

fn from_text(text: &str) -> Option<When> {
    let civil = |civil| When { civil, zoned: None };
    if let Ok(date) = text.parse::<Date>() {
        // jiff reads a date of a text with a time too; that is for what follows.
        if !text.contains([':', 'T']) {
            return Some(civil(date.at(0, 0, 0, 0)));
        }
    }
    if let Ok(pieces) = jiff::fmt::temporal::Pieces::parse(text) {
        let at = pieces.date().to_datetime(pieces.time().unwrap_or_default());
        let zoned = pieces
            .to_numeric_offset()
            .and_then(|offset| at.to_zoned_datetime(jiff::tz::TimeZone::fixed(offset)).ok());
        return Some(When { civil: at, zoned });
    }
    let digits: String = text
        .chars()
        .map(|c| if matches!(c, '/' | '.' | '年' | '月') { '-' } else { c })
        .filter(|&c| c != '日')
        .collect();
    let mut parts = digits.split('-').map(str::trim);
    let date =
        Date::new(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)
            .ok()?;
    parts.next().is_none().then(|| civil(date.at(0, 0, 0, 0)))
}

/// How a language writes dates and numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Locale {
    En,
    Zh,
    De,
    Fr,
}

fn locale(name: Option<&str>) -> Result<Locale, Error> {
    match name.unwrap_or("en").split(['-', '_']).next().unwrap_or_default() {
        "en" => Ok(Locale::En),
        "zh" => Ok(Locale::Zh),
        "de" => Ok(Locale::De),
        "fr" => Ok(Locale::Fr),
        _ => Err(mistake("`locale` is en, zh, de or fr")),
    }
}

const EN_MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DE_MONTHS: [&str; 12] = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];
const FR_MONTHS: [&str; 12] = [
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
];
const EN_DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const ZH_DAYS: [&str; 7] = ["星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"];
const DE_DAYS: [&str; 7] = ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"];
const FR_DAYS: [&str; 7] = ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"];

fn name_of<const N: usize>(names: [&'static str; N], from_zero: i8) -> &'static str {
    names.get(usize::from(from_zero.unsigned_abs())).copied().unwrap_or_default()
}

impl Locale {
    fn short_date(self, date: Date) -> String {
        let (year, month, day) = (date.year(), date.month(), date.day());
        match self {
            Locale::En => format!("{} {} {year}", day, &name_of(EN_MONTHS, month - 1)[..3]),
            Locale::Zh => format!("{year}/{month}/{day}"),
            Locale::De => format!("{day:02}.{month:02}.{year}"),
            Locale::Fr => format!("{day:02}/{month:02}/{year}"),
        }
    }

    fn long_date(self, date: Date) -> String {
        let (year, month, day) = (date.year(), date.month(), date.day());
        match self {
            Locale::En => format!("{} {day}, {year}", name_of(EN_MONTHS, month - 1)),
            Locale::Zh => format!("{year}年{month}月{day}日"),
            Locale::De => format!("{day}. {} {year}", name_of(DE_MONTHS, month - 1)),
            Locale::Fr if day == 1 => format!("1er {} {year}", name_of(FR_MONTHS, month - 1)),
            Locale::Fr => format!("{day} {} {year}", name_of(FR_MONTHS, month - 1)),
        }
    }

    fn full_date(self, date: Date) -> String {
        let (long, weekday) = (self.long_date(date), date.weekday().to_monday_zero_offset());
        match self {
            Locale::En => format!("{}, {long}", name_of(EN_DAYS, weekday)),
            Locale::Zh => format!("{long} {}", name_of(ZH_DAYS, weekday)),
            Locale::De => format!("{}, {long}", name_of(DE_DAYS, weekday)),
            Locale::Fr => format!("{} {long}", name_of(FR_DAYS, weekday)),
        }
    }

    /// What stands between groups of three digits, and before the decimals.
    fn separators(self) -> (&'static str, &'static str) {
        match self {
            Locale::En | Locale::Zh => (",", "."),
            Locale::De => (".", ","),
            Locale::Fr => ("\u{202f}", ","),
        }
    }
}

// ---- numbers ----

/// A number in decimal digits, exactly as it was written or as its shortest form is.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// At least one digit, none needless.
    whole: String,
    fraction: String,
}

impl Decimal {
    /// Reads a number, or text that is one: digits with a point, no grouping.
    fn of(value: &Value, filter: &str) -> Result<Decimal, Error> {
        let none = || {
            mistake(format!("`{filter}` is given no number; `columns:` makes one of a column that is text"))
        };
        let text = match value.kind() {
            ValueKind::Number => value.to_string(),
            ValueKind::String => value.as_str().unwrap_or_default().trim().to_owned(),
            _ => return Err(none()),
        };
        Decimal::parse(&text).ok_or_else(none)
    }

    fn parse(text: &str) -> Option<Decimal> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        Some(Decimal { negative, whole: whole.to_owned(), fraction: fraction.to_owned() })
    }

    /// The same with so many decimals; a half goes away from zero, as people round.
    fn rounded(mut self, decimals: usize) -> Decimal {
        if self.fraction.len() <= decimals {
            let missing = decimals - self.fraction.len();
            self.fraction.extend(std::iter::repeat_n('0', missing));
            return self.without_negative_zero();
        }
        let up = self.fraction.as_bytes()[decimals] >= b'5';
        self.fraction.truncate(decimals);
        if up {
            let mut digits: Vec<u8> = self.whole.bytes().chain(self.fraction.bytes()).collect();
            let mut carry = true;
            for digit in digits.iter_mut().rev() {
                carry = *digit == b'9';
                *digit = if carry { b'0' } else { *digit + 1 };
                if !carry {
                    break;
                }
            }
            if carry {
                digits.insert(0, b'1');
            }
            let split = digits.len() - decimals;
            self.fraction = digits.split_off(split).into_iter().map(char::from).collect();
            self.whole = digits.into_iter().map(char::from).collect();
        }
        self.without_negative_zero()
    }

    fn without_negative_zero(mut self) -> Decimal {
        let zero = |digits: &str| digits.bytes().all(|b| b == b'0');
        self.negative &= !(zero(&self.whole) && zero(&self.fraction));
        self
    }

    /// Digits with groups of three, without a sign.
    fn grouped(&self, (group, point): (&str, &str)) -> String {
        let mut out = String::with_capacity(self.whole.len() * 4 / 3 + self.fraction.len() + 2);
        for (at, digit) in self.whole.chars().enumerate() {
            if at > 0 && (self.whole.len() - at).is_multiple_of(3) {
                out.push_str(group);
            }
            out.push(digit);
        }
        if !self.fraction.is_empty() {
            out.push_str(point);
            out.push_str(&self.fraction);
        }
        out
    }
}

/// The most decimals that are written.
const MOST_DECIMALS: usize = 30;

/// `number`: grouped by thousands; `number(2)` with two decimals; `locale`, `group=false`.
fn number(value: &Value, decimals: Option<usize>, kwargs: Kwargs) -> Result<String, Error> {
    let locale = locale(kwargs.get::<Option<&str>>("locale")?)?;
    let group = kwargs.get::<Option<bool>>("group")?.unwrap_or(true);
    let decimals = decimals.or(kwargs.get::<Option<usize>>("decimals")?);
    finish(&kwargs)?;
    let mut number = Decimal::of(value, "number")?;
    number = match decimals {
        Some(decimals) if decimals > MOST_DECIMALS => {
            return Err(mistake("`number` writes at most 30 decimals"));
        }
        Some(decimals) => number.rounded(decimals),
        // 3.0 is how the engine prints the number 3 that was once written with a point.
        None if number.fraction.bytes().all(|b| b == b'0') => number.rounded(0),
        None => number,
    };
    let (between, point) = locale.separators();
    let digits = number.grouped((if group { between } else { "" }, point));
    Ok(if number.negative { format!("-{digits}") } else { digits })
}

/// `money("CNY")`: ¥1,234.50; `money("EUR", locale="de")`: 1.234,50 €.
fn money(value: &Value, currency: Option<&str>, kwargs: Kwargs) -> Result<String, Error> {
    let locale = locale(kwargs.get::<Option<&str>>("locale")?)?;
    let decimals = kwargs.get::<Option<usize>>("decimals")?;
    finish(&kwargs)?;
    let currency = currency.unwrap_or_default();
    let (symbol, usual) = match currency {
        "CNY" | "RMB" => ("¥", 2),
        "USD" => ("$", 2),
        "EUR" => ("€", 2),
        "GBP" => ("£", 2),
        "JPY" => ("¥", 0),
        "KRW" => ("₩", 0),
        "INR" => ("₹", 2),
        "HKD" => ("HK$", 2),
        "TWD" => ("NT$", 0),
        "SGD" => ("S$", 2),
        "AUD" => ("A$", 2),
        "CAD" => ("C$", 2),
        code if code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) => (code, 2),
        _ => {
            return Err(mistake(
                "`money` takes the three capital letters of a currency, as in money(\"CNY\")",
            ));
        }
    };
    let decimals = decimals.unwrap_or(usual);
    if decimals > MOST_DECIMALS {
        return Err(mistake("`money` writes at most 30 decimals"));
    }
    let number = Decimal::of(value, "money")?.rounded(decimals);
    let digits = number.grouped(locale.separators());
    let sign = if number.negative { "-" } else { "" };
    Ok(match locale {
        Locale::De | Locale::Fr => format!("{sign}{digits}\u{a0}{symbol}"),
        Locale::En | Locale::Zh if symbol == currency => format!("{symbol}\u{a0}{sign}{digits}"),
        Locale::En | Locale::Zh => format!("{sign}{symbol}{digits}"),
    })
}

/// A whole number of no more than fifteen digits.
fn whole(value: &Value, filter: &str) -> Result<i64, Error> {
    let number = Decimal::of(value, filter)?;
    if number.whole.len() > 15 || number.fraction.bytes().any(|b| b != b'0') {
        return Err(mistake(format!("`{filter}` writes whole numbers of at most 15 digits")));
    }
    let digits: i64 = number.whole.parse().map_err(|_| mistake("a number is too large"))?;
    Ok(if number.negative { -digits } else { digits })
}

/// `ordinal`: 1st, 2nd, 3rd, 11th.
fn ordinal(value: &Value) -> Result<String, Error> {
    let number = whole(value, "ordinal")?;
    let rest = number.unsigned_abs() % 100;
    let suffix = match (rest, rest % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    Ok(format!("{number}{suffix}"))
}

/// `spell`: a whole number in English words.
fn spell(value: &Value) -> Result<String, Error> {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] =
        ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    const GROUPS: [&str; 5] = ["", " thousand", " million", " billion", " trillion"];
    let number = whole(value, "spell")?;
    let mut rest = number.unsigned_abs();
    if rest == 0 {
        return Ok(SMALL[0].to_owned());
    }
    let mut groups = Vec::new();
    while rest > 0 {
        groups.push((rest % 1000) as usize);
        rest /= 1000;
    }
    let mut out = String::from(if number < 0 { "minus" } else { "" });
    for (power, group) in groups.iter().enumerate().rev().filter(|(_, group)| **group > 0) {
        let (hundreds, below) = (group / 100, group % 100);
        if !out.is_empty() {
            out.push(' ');
        }
        if hundreds > 0 {
            let _ = write!(out, "{} hundred{}", SMALL[hundreds], if below > 0 { " and " } else { "" });
        }
        match below {
            0 => {}
            1..20 => out.push_str(SMALL[below]),
            _ if below % 10 == 0 => out.push_str(TENS[below / 10]),
            _ => {
                let _ = write!(out, "{}-{}", TENS[below / 10], SMALL[below % 10]);
            }
        }
        out.push_str(GROUPS.get(power).copied().unwrap_or_default());
    }
    Ok(out)
}

// ---- Chinese ----

const PLAIN_DIGITS: [char; 10] = ['零', '一', '二', '三', '四', '五', '六', '七', '八', '九'];
const BANK_DIGITS: [char; 10] = ['零', '壹', '贰', '叁', '肆', '伍', '陆', '柒', '捌', '玖'];

/// A number in Chinese, as it is read: zeros within are said once, groups of four have names.
fn chinese(mut number: u64, bank: bool) -> String {
    let digits = if bank { BANK_DIGITS } else { PLAIN_DIGITS };
    let units = if bank { ["", "拾", "佰", "仟"] } else { ["", "十", "百", "千"] };
    if number == 0 {
        return digits[0].to_string();
    }
    let mut groups = Vec::new();
    while number > 0 {
        groups.push(number % 10_000);
        number /= 10_000;
    }
    let mut out = String::new();
    let mut zero = false;
    for (power, &group) in groups.iter().enumerate().rev() {
        if group == 0 {
            zero = !out.is_empty();
            continue;
        }
        for place in (0..4u32).rev() {
            let digit = (group / 10u64.pow(place) % 10) as usize;
            if digit == 0 {
                zero |= !out.is_empty();
                continue;
            }
            if zero {
                out.push(digits[0]);
                zero = false;
            }
            // 十五, not 一十五, when it begins so; at the bank the one is written.
            if bank || digit != 1 || place != 1 || !out.is_empty() {
                out.push(digits[digit]);
            }
            out.push_str(units[place as usize]);
        }
        // A zero at the end of a group is not said.
        zero = false;
        out.push_str(["", "万", "亿", "万亿"].get(power).copied().unwrap_or_default());
    }
    out
}

/// `cn_number`: 一千二百三十四; `cn_number(upper=true)`: 壹仟贰佰叁拾肆. Decimals follow 点.
fn cn_number(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let bank = kwargs.get::<Option<bool>>("upper")?.unwrap_or(false);
    finish(&kwargs)?;
    let number = Decimal::of(value, "cn_number")?;
    if number.whole.len() > 15 {
        return Err(mistake("`cn_number` writes numbers of at most 15 digits"));
    }
    let fraction = number.fraction.trim_end_matches('0');
    let mut out = String::from(if number.negative { "负" } else { "" });
    out.push_str(&chinese(number.whole.parse().unwrap_or_default(), bank));
    if !fraction.is_empty() {
        let digits = if bank { BANK_DIGITS } else { PLAIN_DIGITS };
        out.push('点');
        out.extend(fraction.bytes().map(|b| digits[usize::from(b - b'0')]));
    }
    Ok(out)
}

/// `cn_money`: 壹仟贰佰叁拾肆元伍角整, as cheques and invoices have it.
fn cn_money(value: &Value) -> Result<String, Error> {
    let number = Decimal::of(value, "cn_money")?.rounded(2);
    if number.whole.len() > 15 {
        return Err(mistake("`cn_money` writes amounts of at most 15 digits"));
    }
    let yuan: u64 = number.whole.parse().unwrap_or_default();
    let cents: Vec<usize> = number.fraction.bytes().map(|b| usize::from(b - b'0')).collect();
    let (jiao, fen) = (cents.first().copied().unwrap_or(0), cents.get(1).copied().unwrap_or(0));
    let mut out = String::from(if number.negative { "负" } else { "" });
    if yuan > 0 || (jiao == 0 && fen == 0) {
        out.push_str(&chinese(yuan, true));
        out.push('元');
    }
    match (jiao, fen) {
        (0, 0) => {}
        (0, fen) => {
            if yuan > 0 {
                out.push('零');
            }
            out.push(BANK_DIGITS[fen]);
            out.push('分');
            return Ok(out);
        }
        (jiao, fen) => {
            out.push(BANK_DIGITS[jiao]);
            out.push('角');
            if fen > 0 {
                out.push(BANK_DIGITS[fen]);
                out.push('分');
                return Ok(out);
            }
        }
    }
    out.push('整');
    Ok(out)
}

/// `cn_date`: 二〇二六年十一月二十三日.
fn cn_date(state: &State, value: &Value) -> Result<String, Error> {
    let date = moment(state, value)?.civil.date();
    let year: String = date
        .year()
        .to_string()
        .bytes()
        .map(|b| if b == b'0' { '〇' } else { PLAIN_DIGITS[usize::from(b.saturating_sub(b'0')).min(9)] })
        .collect();
    let number = |number: i8| chinese(u64::from(number.unsigned_abs()), false);
    Ok(format!("{year}年{}月{}日", number(date.month()), number(date.day())))
}

/// `urlencode`: as a part of a URL (RFC 3986 §2.3); all but letters, digits and `-._~` is escaped.
fn urlencode(value: &Value, _rest: Rest<Value>) -> Result<String, Error> {
    let text = match value.kind() {
        ValueKind::None | ValueKind::Undefined => return Err(mistake("`urlencode` is given nothing")),
        _ => value.to_string(),
    };
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(expression: &str, value: serde_json::Value) -> Result<String, String> {
        let mut env = Environment::new();
        add_to(&mut env);
        let context = Value::from_pairs([("x", super::super::value::json(&value))]);
        env.render_str(&format!("{{{{ {expression} }}}}"), context)
            .map_err(|e| super::super::error::reason(&e))
    }

    #[test]
    fn numbers_are_written_as_people_do() {
        for (expression, value, expected) in [
            ("x|number", json!(1234567), "1,234,567"),
            ("x|number", json!("1234567.5"), "1,234,567.5"),
            ("x|number", json!(3.0), "3"),
            ("x|number(2)", json!("2.675"), "2.68"),
            ("x|number(2)", json!(2.675), "2.68"),
            ("x|number(0)", json!("999.5"), "1,000"),
            ("x|number(2)", json!("-0.001"), "0.00"),
            ("x|number(1, locale='de')", json!(-1234.56), "-1.234,6"),
            ("x|number(group=false)", json!(1234), "1234"),
            ("x|money('CNY')", json!("1234.5"), "¥1,234.50"),
            ("x|money('USD')", json!(-5), "-$5.00"),
            ("x|money('EUR', locale='de')", json!(1234.5), "1.234,50\u{a0}€"),
            ("x|money('JPY')", json!(1234.5), "¥1,235"),
            ("x|money('CHF')", json!(10), "CHF\u{a0}10.00"),
            ("x|ordinal", json!(1), "1st"),
            ("x|ordinal", json!(112), "112th"),
            ("x|ordinal", json!(23), "23rd"),
            ("x|spell", json!(1234), "one thousand two hundred and thirty-four"),
            ("x|spell", json!(-20), "minus twenty"),
            ("x|spell", json!(1000001), "one million one"),
            ("x|urlencode", json!("a b/ü&"), "a%20b%2F%C3%BC%26"),
        ] {
            assert_eq!(render(expression, value).as_deref(), Ok(expected), "{expression}");
        }
        for (expression, value) in [
            ("x|number", json!("12a")),
            ("x|number", json!("")),
            ("x|number", json!("1,234")),
            ("x|money('euro')", json!(1)),
            ("x|money", json!(1)),
            ("x|number(locale='xx')", json!(1)),
            ("x|number(colour=1)", json!(1)),
            ("x|number(99)", json!(1)),
            ("x|spell", json!(1.5)),
            ("x|date", json!("yesterday")),
            ("x|date('%Q')", json!("2026-11-23")),
            ("x|date('yyyy-MM-dd')", json!("2026-11-23")),
            ("x|date('YYYY年MM月DD日')", json!("2026-11-23")),
        ] {
            assert!(render(expression, value.clone()).is_err(), "{expression} {value}");
        }
    }

    #[test]
    fn a_currency_that_is_not_said_is_asked_for() {
        let said = render("x|money", json!(1)).expect_err("no currency");
        assert!(said.contains("money(\"CNY\")"), "{said}");
    }

    #[test]
    fn the_readme_shows_what_comes_out() {
        let mut env = Environment::new();
        add_to(&mut env);
        let block = include_str!("../../README.md").split("```").find(|block| block.starts_with("jinja\n"));
        let lines: Vec<&str> = block.expect("a block of filters").lines().skip(1).collect();
        assert!(
            OURS.iter().all(|name| name.starts_with('e') || lines.iter().any(|line| line.contains(name)))
        );
        for line in lines {
            let (template, comment) = line.split_once("{#").expect("a comment");
            let expected = comment.trim_end_matches("#}").split(';').next().unwrap_or_default();
            let written = env.render_str(template.trim(), ()).expect(template);
            assert_eq!(written, expected.trim(), "{template}");
        }
    }

    #[test]
    fn chinese_numbers_are_read_aloud_rightly() {
        for (number, plain, bank) in [
            (0, "零", "零"),
            (10, "十", "壹拾"),
            (15, "十五", "壹拾伍"),
            (100, "一百", "壹佰"),
            (101, "一百零一", "壹佰零壹"),
            (110, "一百一十", "壹佰壹拾"),
            (1001, "一千零一", "壹仟零壹"),
            (1010, "一千零一十", "壹仟零壹拾"),
            (10_000, "一万", "壹万"),
            (10_001, "一万零一", "壹万零壹"),
            (100_100, "十万零一百", "壹拾万零壹佰"),
            (120_034, "十二万零三十四", "壹拾贰万零叁拾肆"),
            (1_0000_0000, "一亿", "壹亿"),
            (1_0000_0001, "一亿零一", "壹亿零壹"),
            (1_2345_6789, "一亿二千三百四十五万六千七百八十九", "壹亿贰仟叁佰肆拾伍万陆仟柒佰捌拾玖"),
        ] {
            assert_eq!((chinese(number, false), chinese(number, true)), (plain.to_owned(), bank.to_owned()));
        }
    }

    #[test]
    fn amounts_and_dates_are_written_in_chinese() {
        for (expression, value, expected) in [
            ("x|cn_money", json!("1234.5"), "壹仟贰佰叁拾肆元伍角整"),
            ("x|cn_money", json!(1234), "壹仟贰佰叁拾肆元整"),
            ("x|cn_money", json!("1234.56"), "壹仟贰佰叁拾肆元伍角陆分"),
            ("x|cn_money", json!("1234.05"), "壹仟贰佰叁拾肆元零伍分"),
            ("x|cn_money", json!("0.5"), "伍角整"),
            ("x|cn_money", json!(0), "零元整"),
            ("x|cn_money", json!(-100), "负壹佰元整"),
            ("x|cn_number", json!(1234), "一千二百三十四"),
            ("x|cn_number(upper=true)", json!("12.50"), "壹拾贰点伍"),
            ("x|cn_date", json!("2026-11-23"), "二〇二六年十一月二十三日"),
            ("x|cn_date", json!("2010-10-10"), "二〇一〇年十月十日"),
            ("x|date('%Y年%m月%d日')", json!("2026-11-23"), "2026年11月23日"),
            ("x|date", json!("2026-11-03"), "November 3, 2026"),
            ("x|date('long', locale='zh')", json!("2026/11/3"), "2026年11月3日"),
            ("x|date('full', locale='zh')", json!("2026年11月23日"), "2026年11月23日 星期一"),
            ("x|date('full', locale='de')", json!("2026-11-23"), "Montag, 23. November 2026"),
            ("x|date('long', locale='fr')", json!("2026-08-01"), "1er août 2026"),
            ("x|date('short')", json!("2026-11-23"), "23 Nov 2026"),
            ("x|date('iso')", json!("2026-11-23T10:00:00+08:00"), "2026-11-23"),
            ("x|date('%H:%M %z')", json!("2026-11-23T10:00:00+08:00"), "10:00 +0800"),
            ("x|date('%G-W%V')", json!(0), "1970-W01"),
        ] {
            assert_eq!(render(expression, value).as_deref(), Ok(expected), "{expression}");
        }
    }
}
