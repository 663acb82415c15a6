//! A sending job as small as can be, for tests and benches of rendering: nothing is in it but what
//! they add.

use std::path::Path;

use postroom::job::{self, Environment, Job, SendJob};

const FILE: &str = "kind: send
name: bare
edition: \"1\"
timezone: UTC
from: Post Room <news@sender.test>
recipients:
  file: list.csv
  to: \"{{ email }}\"
subject: Hello
body:
  text: {inline: Hello}
relay: {host: 127.0.0.1, port: 25, tls: none}
";

/// A job rooted in a folder, whose list is said to be the CSV file `list.csv`, without a body.
pub(crate) fn bare_job(root: &Path) -> SendJob {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("job.yaml"), FILE).expect("written");
    std::fs::write(folder.path().join("list.csv"), "email\n").expect("written");
    let read = job::read(Path::new("job.yaml"), &Environment::fixed(folder.path(), &[]));
    let mut job = match read {
        Ok(Job::Send(job)) => *job,
        Ok(Job::Archive(_)) => panic!("a sending job is an archive"),
        Err(mistakes) => panic!("{}", postroom::diagnostic::print(&mistakes, false)),
    };
    job.root = root.to_owned();
    job.body.text = None;
    job
}
