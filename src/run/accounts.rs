//! Where the runs of one user on this machine keep what they share of an account: a folder of the user's state, or
//! where that cannot be had one of the system's temporary folder that is the user's alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::submit::Accounts;
use crate::talk;

/// The accounts of this user. Once `leave` says so, no connection of theirs is waited for any longer.
pub(super) fn of_this_user(leave: impl Fn() -> bool + Send + Sync + 'static) -> Accounts {
    let say = |words: &str| eprintln!("postroom: {words}");
    let mut reasons = Vec::new();
    for folder in places() {
        match own(&folder) {
            Ok(()) => return Accounts::at(&folder, say, leave).quiet(talk::is_quiet()),
            Err(error) => reasons.push(format!("{}: {error}", folder.display())),
        }
    }
    say(&format!("pace and connections are not shared with other runs: {}", reasons.join("; ")));
    Accounts::unshared(say, leave).quiet(talk::is_quiet())
}

fn places() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    let user = rustix::process::geteuid().as_raw();
    state
        .map(|state| state.join("postroom"))
        .into_iter()
        .chain([std::env::temp_dir().join(format!("postroom-{user}"))])
        .collect()
}

/// Makes the folder, if it is not there, and makes sure that nobody else can write into it.
fn own(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not this user's alone"));
    }
    // Whoever may list it may not write: the disk may be read-only.
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_into_is_not_used() {
        let within = tempfile::tempdir().unwrap();
        let folder = within.path().join("a/b");
        own(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        own(&folder).unwrap();
        let link = within.path().join("link");
        symlink(&folder, &link).unwrap();
        own(&link).unwrap_err();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        own(&folder).unwrap_err();
        fs::write(within.path().join("file"), "").unwrap();
        own(&within.path().join("file")).unwrap_err();
    }
}
