//! Which column holds the address where the job does not say.

use super::Columns;

/// Names that mean nothing but a mail address, in lower case.
const CERTAIN: [&str; 2] = ["email", "邮箱"];

/// Names that mean one where no certain one stands beside them.
const LIKELY: [&str; 6] = ["e-mail", "mail", "电子邮件", "电子邮箱", "邮箱地址", "邮件地址"];

/// Why no column can be taken for the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddressColumn {
    /// None is named so.
    #[error("there is no column `email` or `邮箱`, and the job has no `to`")]
    None,
    /// Several are, and to choose could mean to write to the wrong one.
    #[error("`{0}` and `{1}` could both be the address, and the job has no `to`")]
    Several(String, String),
}

/// The column that is meant when a job has no `to`: `email`, else `邮箱`, else the only one that means the same, in
/// either case of letters.
pub fn default_address_column(columns: &Columns) -> Result<&str, NoAddressColumn> {
    if let Some(exact) = CERTAIN.into_iter().find(|name| columns.place(name).is_some()) {
        return Ok(exact);
    }
    for wanted in [&CERTAIN[..], &LIKELY] {
        let mut found =
            columns.names().iter().filter(|name| wanted.contains(&name.trim().to_lowercase().as_str()));
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => {
                return Err(NoAddressColumn::Several(first.clone(), second.clone()));
            }
            (Some(only), None) => return Ok(only),
            (None, _) => {}
        }
    }
    Err(NoAddressColumn::None)
}

/// Whether a column of this name holds addresses.
pub fn is_address_column(name: &str) -> bool {
    let name = name.trim().to_lowercase();
    CERTAIN.contains(&name.as_str()) || LIKELY.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_or_asked_for() {
        for (names, expected) in [
            (&["name", "email"][..], Ok("email")),
            (&["姓名", "邮箱"], Ok("邮箱")),
            (&["EMail", "x"], Ok("EMail")),
            (&["mail", "email"], Ok("email")),
            (&["E-Mail"], Ok("E-Mail")),
            (&["电子邮件"], Ok("电子邮件")),
            (&["邮箱", "email"], Ok("email")),
            (&["Email", "EMAIL"], Err("`Email` and `EMAIL` could both")),
            (&["mail", "电子邮箱"], Err("`mail` and `电子邮箱` could both")),
            (&["name", "address"], Err("no column `email`")),
        ] {
            let columns = Columns::new(names.iter().map(|&name| name.to_owned()).collect());
            match (default_address_column(&columns), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        }
    }
}
