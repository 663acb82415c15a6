//! Searching the index: words, and `from:` `to:` `subject:` `file:` `after:` `before:` `has:attachment`.

use std::path::Path;

use jiff::civil;
use rusqlite::types::Value;

use super::index::{self, IndexError};
use super::terms;

/// A message that was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hit {
    /// Where it lies, from the store.
    pub path: String,
    /// The date it is filed under: RFC 3339.
    pub date: Option<String>,
    /// Who wrote it.
    pub from: String,
    /// To whom.
    pub to: String,
    /// About what.
    pub subject: String,
    /// Names of attached files.
    pub attachments: Vec<String>,
    /// Bytes.
    pub size: u64,
}

/// Why nothing could be searched.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A word that says nothing.
    #[error("`{word}`: {reason}")]
    Word {
        /// As it was typed.
        word: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
struct Query {
    /// In the words of FTS5.
    words: Vec<String>,
    conditions: Vec<(&'static str, i64)>,
}

/// Finds messages in which all words occur, the newest first, and hands them to `each`, until it says no.
pub fn find(
    store: &Path,
    words: &[String],
    limit: Option<u64>,
    mut each: impl FnMut(Hit) -> bool,
) -> Result<(), FindError> {
    let query = parse(words)?;
    let database = index::open_to_read(store)?;
    let mut text =
        "SELECT path, date, sender, recipients, subject, attachments, size FROM messages WHERE 1".to_owned();
    let mut values: Vec<Value> = Vec::new();
    if !query.words.is_empty() {
        text.push_str(" AND id IN (SELECT rowid FROM words WHERE words MATCH ?)");
        values.push(Value::Text(query.words.join(" AND ")));
    }
    for (condition, value) in query.conditions {
        text.push_str(" AND ");
        text.push_str(condition);
        if condition.contains('?') {
            values.push(Value::Integer(value));
        }
    }
    text.push_str(" ORDER BY date DESC, id DESC LIMIT ?");
    values.push(Value::Integer(limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1)));
    let run = || -> Result<(), rusqlite::Error> {
        let mut statement = database.prepare(&text)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let date: Option<i64> = row.get(1)?;
            let attachments: String = row.get(5)?;
            let hit = Hit {
                path: row.get(0)?,
                date: date
                    .and_then(|date| jiff::Timestamp::from_second(date).ok())
                    .map(|date| date.to_string()),
                from: row.get(2)?,
                to: row.get(3)?,
                subject: row.get(4)?,
                attachments: attachments.lines().map(str::to_owned).collect(),
                size: u64::try_from(row.get::<_, i64>(6)?).unwrap_or(0),
            };
            if !each(hit) {
                break;
            }
        }
        Ok(())
    };
    Ok(run().map_err(IndexError::from)?)
}

fn parse(words: &[String]) -> Result<Query, FindError> {
    let mut query = Query::default();
    for word in words {
        let wrong = |reason| FindError::Word { word: word.clone(), reason };
        let (column, text) = match word.split_once([':', '\u{ff1a}']) {
            Some(("from", text)) => (Some("sender"), text),
            Some(("to", text)) => (Some("recipients"), text),
            Some(("subject", text)) => (Some("subject"), text),
            Some(("file", text)) => (Some("attachments"), text),
            Some(("after", text)) => {
                query.conditions.push(("date >= ?", day(text).ok_or_else(|| wrong(A_DATE))?));
                continue;
            }
            Some(("before", text)) => {
                query.conditions.push(("date < ?", day(text).ok_or_else(|| wrong(A_DATE))?));
                continue;
            }
            Some(("has", "attachment" | "attachments")) => {
                query.conditions.push(("attachments != ''", 0));
                continue;
            }
            Some(("has", _)) => return Err(wrong("`has:` knows only `has:attachment`")),
            _ => (None, word.as_str()),
        };
        let beginning = text.ends_with('*');
        let mut terms = Vec::new();
        terms::each(text, |term| terms.push(term.to_owned()));
        // The last character of a run is found as the beginning of a pair; in a longer run the pairs say
        // it all.
        let alone = |term: &str| term.chars().count() == 1 && !term.is_ascii();
        if terms.len() > 1 {
            let mut before_dense = false;
            terms.retain(|term| {
                let keep = !(alone(term) && before_dense);
                before_dense = !term.is_ascii();
                keep
            });
        }
        if terms.is_empty() {
            return Err(wrong("there is no word in it to search for"));
        }
        let last = terms.len() - 1;
        for (at, term) in terms.iter().enumerate() {
            let star = if alone(term) || (beginning && at == last) { "*" } else { "" };
            // A term holds letters and digits only, so it needs no escaping within its quotes.
            let column = column.map(|column| format!("{column} : ")).unwrap_or_default();
            query.words.push(format!("{column}\"{term}\"{star}"));
        }
    }
    Ok(query)
}

const A_DATE: &str = "a date is written 2026, 2026-11 or 2026-11-23";

/// The beginning of a day, month or year, UTC: seconds since 1970.
fn day(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year: i16 = parts.next()?.parse().ok()?;
    let month: i8 = parts.next().map_or(Some(1), |month| month.parse().ok())?;
    let day: i8 = parts.next().map_or(Some(1), |day| day.parse().ok())?;
    if parts.next().is_some() {
        return None;
    }
    let at = civil::DateTime::new(year, month, day, 0, 0, 0, 0).ok()?;
    jiff::tz::TimeZone::UTC.to_timestamp(at).ok().map(|at| at.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_query() {
        for (words, expected) in [
            (&["发票"][..], Some("\"发票\"")),
            (&["发票号"], Some("\"发票\" AND \"票号\"")),
            (&["票"], Some("\"票\"*")),
            (&["from:Ada", "report"], Some("sender : \"ada\" AND \"report\"")),
            (
                &["to:ada@example.org"],
                Some("recipients : \"ada\" AND recipients : \"example\" AND recipients : \"org\""),
            ),
            (&["subject\u{ff1a}发票"], Some("subject : \"发票\"")),
            (&["subject:rep*"], Some("subject : \"rep\"*")),
            (&["file:发票.pdf"], Some("attachments : \"发票\" AND attachments : \"pdf\"")),
            (&["https://example.org"], Some("\"https\" AND \"example\" AND \"org\"")),
            (&["\"; DROP"], Some("\"drop\"")),
            (&["..."], None),
            (&["has:wings"], None),
            (&["after:yesterday"], None),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let found = parse(&words).ok().map(|query| query.words.join(" AND "));
            assert_eq!(found.as_deref(), expected, "{words:?}");
        }
        let query = parse(&["after:2026-11".into(), "before:2027".into(), "has:attachment".into()]).unwrap();
        let conditions =
            [("date >= ?", 1_793_491_200), ("date < ?", 1_798_761_600), ("attachments != ''", 0)];
        assert_eq!(query.conditions, conditions);
    }
}
