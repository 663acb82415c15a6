//! What is done to a ledger between runs: putting back, forgetting, pruning.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, params};
use serde_json::Value as Json;
use unicode_width::UnicodeWidthChar;

use crate::failpoint;
use crate::ledger::{EditionId, Forgotten, LedgerError, Pruned, Requeue, State};
use crate::letter::RecipientKey;
use crate::mail::{EmailAddress, composed};

use super::{READERS, Sqlite, records, schema, state_of};

/// What begins the key of a delivery whose person is forgotten; a keyed hash of the key follows.
pub(super) const FORGOTTEN: &str = "forgotten:";

/// What stands where an address was.
const NOBODY: &str = "forgotten";

pub(super) fn requeue(
    ledger: &mut Sqlite,
    edition: EditionId,
    wish: &Requeue<'_>,
) -> Result<Vec<(State, u64)>, LedgerError> {
    failpoint::reach("ledger.requeue.before");
    let counts = ledger.transact(|conn, path| {
        let said = |error| LedgerError::sqlite(path, error);
        let (first, last) = schema::bounds(edition);
        let letters = records::letters(wish.states);
        let keys = wish.keys.map(|keys| Json::from(keys).to_string());
        conn.execute_batch("CREATE TEMP TABLE IF NOT EXISTS chosen (id INTEGER PRIMARY KEY); DELETE FROM temp.chosen")
            .map_err(said)?;
        conn.execute(
            "INSERT INTO temp.chosen SELECT d.id FROM deliveries d JOIN rows r ON r.id = d.id
             WHERE d.id BETWEEN ?1 AND ?2 AND instr(?3, d.state) AND d.state NOT IN ('p', 'c', 's')
                AND (?4 IS NULL OR r.key IN (SELECT value FROM json_each(?4)))
                -- The row of a forgotten person cannot be sent, nor that of a list it was taken from.
                AND substr(r.key, 1, 10) <> 'forgotten:'",
            params![first, last, letters, keys],
        )
        .map_err(said)?;
        let counts = conn
            .prepare("SELECT d.state, count(*) FROM deliveries d JOIN temp.chosen c ON c.id = d.id GROUP BY d.state")
            .and_then(|mut select| {
                select
                    .query_map([], |row| Ok((state_of(row, 0)?, row.get::<_, i64>(1)? as u64)))?
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .map_err(said)?;
        for sql in [
            "INSERT INTO requeued (delivery, at, state, generation, message_id)
             SELECT d.id, ?1, d.state, d.generation, d.message_id FROM deliveries d JOIN temp.chosen c ON c.id = d.id",
            // Of a letter that was accepted all recipients are to get it again, of any other those who
            // did not get it. Of one that is to go again anyway, those who may have got it are not asked
            // about. Outcomes are not deleted: their places tell the addresses' numbers.
            "UPDATE rcpts SET outcome = 'd', at = ?1 WHERE id IN (
                SELECT t.id FROM temp.chosen c JOIN deliveries d ON d.id = c.id
                JOIN rcpts t ON t.id BETWEEN c.id << 10 AND c.id << 10 | 1023
                WHERE d.state = 'a' OR t.outcome <> 'a' AND (d.state NOT IN ('d', 'k') OR t.outcome <> 'u'))",
            // An accepted letter goes again as a new one. One that some may have got stays the same,
            // byte for byte: its date and generation are kept.
            // What failed goes with the files as they are now: they were looked at, or it would not go.
            "UPDATE deliveries SET
                enclosed = CASE WHEN state NOT IN ('a', 'f') THEN enclosed END,
                generation = generation + (state = 'a'),
                date = CASE WHEN state IN ('u', 'd', 'k') OR (state <> 'a' AND EXISTS (
                        SELECT 1 FROM rcpts t
                        WHERE t.id BETWEEN deliveries.id << 10 AND deliveries.id << 10 | 1023 AND t.outcome = 'a'))
                    THEN date END,
                attempts = 0, first_attempt = NULL, next_attempt = NULL, reason = NULL, state = 'p'
             WHERE ?1 IS NOT NULL AND id IN (SELECT id FROM temp.chosen)",
            // The list is looked at again: whoever has left it since gets nothing.
            "UPDATE editions SET finished_at = NULL, source_hash = NULL
             WHERE ?1 IS NOT NULL AND id = (SELECT max(id) >> 32 FROM temp.chosen)",
        ] {
            conn.execute(sql, [wish.now]).map_err(said)?;
        }
        Ok(counts)
    })?;
    failpoint::reach("ledger.requeue.after");
    Ok(counts)
}

pub(super) fn forget(ledger: &mut Sqlite, address: &EmailAddress) -> Result<Forgotten, LedgerError> {
    let secret = ledger.secret;
    let (mut forgotten, folded) = erase(ledger, |conn, path| {
        let said = |error| LedgerError::sqlite(path, error);
        let mut forgotten = Forgotten::default();
        let wanted = address.spellings();
        let is_wanted = |text: &str| wanted.contains(&composed(text));
        // Whoever the address may concern; looked at closely below.
        let mut suspects = BTreeSet::new();
        // SQLite knows no case beyond ASCII, and a row escapes some characters.
        let (usual, odd): (Vec<&String>, Vec<&String>) =
            wanted.iter().partition(|spelling| spelling.is_ascii() && !spelling.contains(['"', '\\']));
        if !odd.is_empty() {
            suspects.extend(mentions(conn, &odd).map_err(said)?);
        }
        for spelling in usual {
            let found: Vec<i64> = conn
                .prepare_cached(
                    "SELECT id FROM rows WHERE instr(lower(row), ?1) OR lower(key) = ?1
                     UNION SELECT id >> 10 FROM rcpts WHERE lower(address) = ?1",
                )
                .and_then(|mut select| select.query_map([spelling], |row| row.get(0))?.collect())
                .map_err(said)?;
            suspects.extend(found);
        }
        for id in suspects {
            let (key, row, state): (String, String, State) = conn
                .prepare_cached("SELECT r.key, r.row, d.state FROM rows r JOIN deliveries d ON d.id = r.id WHERE r.id = ?1")
                .and_then(|mut select| {
                    select.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, state_of(row, 2)?)))
                })
                .map_err(said)?;
            let (from, to) = schema::items(id, id);
            // The letter is this person's if they are its key or its first recipient; before it is sent,
            // if the address is the first one in the row.
            let first_rcpt: Option<String> = conn
                .prepare_cached(
                    "SELECT (SELECT address FROM rcpts WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1)",
                )
                .and_then(|mut select| select.query_row([from, to], |row| row.get(0)))
                .map_err(said)?;
            let cells: Json = serde_json::from_str(&row).unwrap_or_default();
            let theirs = is_wanted(&key)
                || match first_rcpt {
                    Some(first) => is_wanted(&first),
                    None => first_address(&cells).is_some_and(is_wanted),
                };
            if theirs {
                take_out(conn, id, &key, &secret).map_err(said)?;
                forgotten.deliveries += 1;
                forgotten.unsent += u64::from(!state.is_final() && state != State::Sending);
                continue;
            }
            let mut cells = cells;
            // No short circuit: a row may spell it in two ways.
            let in_row = wanted.iter().fold(false, |found, spelling| blank(&mut cells, spelling) | found);
            if !state.is_final() {
                forgotten.open_mentions += u64::from(in_row);
                continue;
            }
            if in_row {
                conn.execute("UPDATE rows SET row = ?2 WHERE id = ?1", params![id, cells.to_string()])
                    .map_err(said)?;
            }
            let addressed = "SELECT id, address FROM rcpts WHERE id BETWEEN ?1 AND ?2";
            let addressed = those(conn, addressed, params![from, to], &is_wanted).map_err(said)?;
            for id in &addressed {
                conn.prepare_cached("UPDATE rcpts SET address = ?2, text = '' WHERE id = ?1")
                    .and_then(|mut update| update.execute(params![id, NOBODY]))
                    .map_err(said)?;
            }
            forgotten.mentions += u64::from(in_row || !addressed.is_empty());
        }
        let rejected = "SELECT edition << 32 | row_no, key FROM rejects WHERE key IS NOT NULL";
        for id in those(conn, rejected, params![], &is_wanted).map_err(said)? {
            conn.execute(
                "UPDATE rejects SET key = NULL WHERE edition = ?1 >> 32 AND row_no = ?1 & 0xffffffff",
                [id],
            )
            .map_err(said)?;
        }
        Ok(forgotten)
    })?;
    forgotten.unfolded = !folded;
    Ok(forgotten)
}

pub(super) fn prune(ledger: &mut Sqlite, before: i64, now: i64) -> Result<Pruned, LedgerError> {
    let (mut pruned, folded) = erase(ledger, |conn, path| {
        let said = |error| LedgerError::sqlite(path, error);
        let old: Vec<u32> = conn
            .prepare(
                "SELECT id FROM editions WHERE coalesce(finished_at, left_at) < ?1 AND pruned_at IS NULL",
            )
            .and_then(|mut select| select.query_map([before], |row| row.get(0))?.collect())
            .map_err(said)?;
        let mut pruned = Pruned::default();
        for id in old {
            let (first, last) = schema::bounds(EditionId(id));
            let (from, to) = schema::items(first, last);
            let delete = |sql: &str, from: i64, to: i64| conn.execute(sql, [from, to]).map_err(said);
            delete("DELETE FROM rows WHERE id BETWEEN ?1 AND ?2", first, last)?;
            let deliveries = delete("DELETE FROM deliveries WHERE id BETWEEN ?1 AND ?2", first, last)?;
            delete("DELETE FROM requeued WHERE delivery BETWEEN ?1 AND ?2", first, last)?;
            delete("DELETE FROM rcpts WHERE id BETWEEN ?1 AND ?2", from, to)?;
            delete("DELETE FROM files WHERE id BETWEEN ?1 AND ?2", from, to)?;
            for table in ["rejects", "components", "layouts"] {
                conn.execute(&format!("DELETE FROM {table} WHERE edition = ?1"), [id]).map_err(said)?;
            }
            conn.execute("UPDATE editions SET pruned_at = ?1 WHERE id = ?2", [now, id.into()])
                .map_err(said)?;
            pruned.editions += 1;
            pruned.deliveries += deliveries as u64;
        }
        Ok(pruned)
    })?;
    pruned.unfolded = !folded;
    Ok(pruned)
}

/// The key a forgotten one is replaced by: whoever has the ledger and guesses the address can find it
/// again, and so a list that still names it does not mail it a second time.
pub(super) fn forgotten_key(secret: &[u8; 32], key: &str) -> String {
    format!("{FORGOTTEN}{}", &blake3::keyed_hash(secret, key.as_bytes()).to_hex()[..32])
}

/// The keys that may have been replaced for a row: its key, and how an older program, which took keys as they were
/// written, may have known it.
pub(super) fn earlier_keys(key: &str, row: &str) -> Vec<String> {
    let cells: Json = serde_json::from_str(row).unwrap_or_default();
    let fields = cells.as_object().into_iter().flat_map(|fields| fields.values());
    let texts = cells.as_array().into_iter().flatten().chain(fields).filter_map(Json::as_str).map(str::trim);
    let same = texts.filter(|text| *text != key && RecipientKey::spelling(text) == key);
    std::iter::once(key).chain(same).map(str::to_owned).collect()
}

/// Runs `work` so that what it deletes is overwritten, in the file and in the log; and says whether it is by now.
fn erase<T>(
    ledger: &mut Sqlite,
    work: impl FnOnce(&Connection, &Path) -> Result<T, LedgerError>,
) -> Result<(T, bool), LedgerError> {
    ledger.conn.execute_batch("PRAGMA secure_delete = ON").map_err(|error| ledger.said(error))?;
    failpoint::reach("ledger.erase.before");
    let done = ledger.transact(work)?;
    failpoint::reach("ledger.erase.after");
    ledger.conn.execute_batch("PRAGMA secure_delete = OFF").map_err(|error| ledger.said(error))?;
    let folded = ledger.fold(READERS)?;
    Ok((done, folded))
}

fn take_out(conn: &Connection, id: i64, key: &str, secret: &[u8; 32]) -> rusqlite::Result<()> {
    let (from, to) = schema::items(id, id);
    if !key.starts_with(FORGOTTEN) {
        conn.execute(
            "UPDATE rows SET key = ?2, row = '[]' WHERE id = ?1",
            // A list will name them by the spelling that stands for all.
            params![id, forgotten_key(secret, &RecipientKey::spelling(key))],
        )?;
    }
    conn.execute(
        "UPDATE deliveries SET reason = 'forgotten', next_attempt = NULL,
                state = CASE WHEN state = 's' THEN 'u' WHEN instr('pcd', state) THEN 'k' ELSE state END
         WHERE id = ?1",
        [id],
    )?;
    conn.execute(
        "UPDATE rcpts SET address = ?3, text = '' WHERE id BETWEEN ?1 AND ?2",
        params![from, to, NOBODY],
    )?;
    conn.execute("UPDATE files SET name = ?3 WHERE id BETWEEN ?1 AND ?2", params![from, to, NOBODY])?;
    Ok(())
}

/// The first text in a row that looks like an address, without a name before it.
fn first_address(cells: &Json) -> Option<&str> {
    match cells {
        Json::String(text) if text.contains('@') => {
            let (_, address) = text.trim().rsplit_once('<').unwrap_or(("", text.trim()));
            Some(address.trim_end_matches('>'))
        }
        Json::Array(values) => values.iter().find_map(first_address),
        Json::Object(fields) => fields.values().find_map(first_address),
        _ => None,
    }
}

/// Which of the rows of a query, number and text, are wanted.
fn those(
    conn: &Connection,
    sql: &str,
    params: &[&dyn rusqlite::ToSql],
    is_wanted: &dyn Fn(&str) -> bool,
) -> rusqlite::Result<Vec<i64>> {
    let mut select = conn.prepare_cached(sql)?;
    let mut texts = select.query(params)?;
    let mut found = Vec::new();
    while let Some(text) = texts.next()? {
        if is_wanted(text.get_ref(1)?.as_str()?) {
            found.push(text.get(0)?);
        }
    }
    Ok(found)
}

/// The letters in whose row or among whose recipients one of these spellings may be.
fn mentions(conn: &Connection, wanted: &[&String]) -> rusqlite::Result<Vec<i64>> {
    let found = |sql, shown: fn(String) -> String| {
        let holds = |text: &str| {
            let text = shown(composed(text));
            wanted.iter().any(|spelling| text.contains(spelling.as_str()))
        };
        those(conn, sql, &[], &holds)
    };
    let unescaped = |row: String| row.replace("\\\"", "\"").replace("\\\\", "\\");
    Ok([
        found("SELECT id, row FROM rows", unescaped)?,
        found("SELECT id, key FROM rows", |key| key)?,
        found("SELECT id >> 10, address FROM rcpts", |address| address)?,
    ]
    .concat())
}

/// Takes an address out of every text of a row; whether it was there as a whole word.
fn blank(cells: &mut Json, wanted: &str) -> bool {
    match cells {
        Json::String(text) => {
            let without = without(text, wanted);
            let found = without.is_some();
            if let Some(without) = without {
                *text = without;
            }
            found
        }
        // No short circuit: an address may stand in several cells.
        Json::Array(values) => values.iter_mut().fold(false, |found, value| blank(value, wanted) | found),
        Json::Object(fields) => fields.values_mut().fold(false, |found, value| blank(value, wanted) | found),
        _ => false,
    }
}

/// A text without an address, where it has that as a whole word. All else stays as it is written.
fn without(text: &str, wanted: &str) -> Option<String> {
    let inside = |c: char| c.is_alphanumeric() || c.width() == Some(0) || "@.-_+%".contains(c);
    // What is compared, and where each character with its marks begins in it and in the text.
    let mut folded = String::new();
    let mut begins = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let marks = rest[first.len_utf8()..].find(|c: char| c.width() != Some(0));
        let (character, behind) = rest.split_at(marks.map_or(rest.len(), |at| first.len_utf8() + at));
        begins.push((folded.len(), text.len() - rest.len()));
        folded += &composed(character);
        rest = behind;
    }
    begins.push((folded.len(), text.len()));
    let place = |at: usize| begins[begins.partition_point(|(folded, _)| *folded < at)].1;
    let mut kept = String::new();
    let mut from = 0;
    for (at, found) in folded.match_indices(wanted) {
        let end = at + found.len();
        if folded[..at].ends_with(inside) || folded[end..].starts_with(inside) {
            continue;
        }
        kept += &text[from..place(at)];
        kept += NOBODY;
        from = place(end);
    }
    (from > 0).then(|| kept + &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_out_as_a_whole_word_only() {
        for (row, expected) in [
            (r#"["bob@x.org","Ada@x.org"]"#, Some(r#"["bob@x.org","forgotten"]"#)),
            (r#"["Ada <ada@x.org>; c@x.org"]"#, Some(r#"["Ada <forgotten>; c@x.org"]"#)),
            (
                r#"["CanADA@x.org; ADA@x.org, 李 ada@X.org"]"#,
                Some(r#"["CanADA@x.org; forgotten, 李 forgotten"]"#),
            ),
            (r#"["İada@x.org İ ada@x.org"]"#, Some(r#"["İada@x.org İ forgotten"]"#)),
            (r#"{"cc":["ada@x.org","b"],"n":1}"#, Some(r#"{"cc":["forgotten","b"],"n":1}"#)),
            (r#"["canada@x.org","ada@x.org.cn"]"#, None),
            (r#"[1,null,true]"#, None),
        ] {
            let mut cells: Json = serde_json::from_str(row).unwrap();
            let found = blank(&mut cells, "ada@x.org").then(|| cells.to_string());
            assert_eq!(found.as_deref(), expected, "{row}");
        }
    }

    #[test]
    fn an_address_is_taken_out_however_it_is_composed() {
        for (text, expected) in [
            ("Jose\u{301}@x.org, Bob", Some("forgotten, Bob")),
            ("JOSÉ@x.org", Some("forgotten")),
            ("sanjosé@x.org", None),
            ("jose@x.org", None),
        ] {
            assert_eq!(without(text, "josé@x.org").as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_row_may_have_been_known_by_its_cells_as_they_are_written() {
        for (row, expected) in [
            (r#"["Ada","Ada@X.org "]"#, &["ada@x.org", "Ada@X.org"][..]),
            (r#"{"n":1,"mail":"ADA@x.org"}"#, &["ada@x.org", "ADA@x.org"]),
            (r#"["ada@x.org","bob@x.org"]"#, &["ada@x.org"]),
        ] {
            assert_eq!(earlier_keys("ada@x.org", row), expected, "{row}");
        }
    }
}
