//! Message-IDs that are computed, never drawn (RFC 5322 §3.6.4): a letter that goes again after a
//! doubt carries the same one, and nobody without the edition's secret can tell what is in it.

/// The Message-ID, with angle brackets, of one letter: a keyed hash (BLAKE3) of what makes the
/// letter itself. `secret` is the edition's; `generation` rises when an accepted letter is sent
/// anew; `purpose` tells a trial from the real letter; `domain` is that of From, in A-labels.
pub fn message_id(
    secret: &[u8; 32],
    job: &str,
    edition: &str,
    key: &str,
    generation: u32,
    purpose: &str,
    domain: &str,
) -> String {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    // Each field with its length, so that no two letters flow into one another.
    for field in [job, edition, key, purpose] {
        hasher.update(&(field.len() as u64).to_be_bytes());
        hasher.update(field.as_bytes());
    }
    hasher.update(&generation.to_be_bytes());
    let hash = hasher.finalize();
    format!("<{}@{domain}>", &hash.to_hex().as_str()[..40])
}

/// The seed of the boundaries of the letter that has this Message-ID: letters and digits only, and
/// as little to be guessed.
pub fn boundary_seed(message_id: &str) -> String {
    blake3::hash(message_id.as_bytes()).to_hex().as_str()[..24].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_letter_has_the_same_id_and_no_other_has_it() {
        let id = |secret: u8, job, edition, key, generation, purpose| {
            message_id(&[secret; 32], job, edition, key, generation, purpose, "example.com")
        };
        let first = id(1, "news", "2026-11", "ada@example.org", 0, "real");
        assert_eq!(first, id(1, "news", "2026-11", "ada@example.org", 0, "real"));
        assert!(first.starts_with('<') && first.ends_with("@example.com>") && first.len() == 54, "{first}");
        for other in [
            id(2, "news", "2026-11", "ada@example.org", 0, "real"),
            id(1, "new", "s2026-11", "ada@example.org", 0, "real"),
            id(1, "news", "2026-12", "ada@example.org", 0, "real"),
            id(1, "news", "2026-11", "eve@example.org", 0, "real"),
            id(1, "news", "2026-11", "ada@example.org", 1, "real"),
            id(1, "news", "2026-11", "ada@example.org", 0, "sandbox"),
        ] {
            assert_ne!(first, other);
            assert_ne!(boundary_seed(&first), boundary_seed(&other));
        }
        assert!(boundary_seed(&first).bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
