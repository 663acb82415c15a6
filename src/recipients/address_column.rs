//! Which column holds the address where the job does not say.

use crate::letter::Columns;

/// Names that mean nothing but a mail address, in lower case.
const CERTAIN: [&str; 2] = ["email", "邮箱"];

/// Names that mean one where no certain one stands beside them.
const LIKELY: [&str; 3] = ["e-mail", "mail", "电子邮件"];

/// Why no column can be taken for the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddressColumn {
    /// None is named so.
    #[error("no column is named email or 邮箱: say `to: \"{{{{ … }}}}\"`; the columns are {}", .0.join(", "))]
    None(Vec<String>),
    /// Several are, and to choose could mean to write to the wrong one.
    #[error("`{0}` and `{1}` could both be the address: say `to: \"{{{{ {0} }}}}\"`")]
    Several(String, String),
}

/// The column that is meant when a job has no `to`: `email` or `邮箱`, else `e-mail`, `mail` or
/// `电子邮件`, in either case of letters.
pub fn default_address_column(columns: &Columns) -> Result<&str, NoAddressColumn> {
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
    Err(NoAddressColumn::None(columns.names().to_vec()))
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
            (&["email", "邮箱"], Err("`email` and `邮箱` could both")),
            (&["mail", "e-mail"], Err("say `to: \"{{ mail }}\"`")),
            (&["name", "address"], Err("the columns are name, address")),
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
