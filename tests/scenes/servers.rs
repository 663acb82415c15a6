//! Debian's Postfix and Dovecot, started for a scene by `tests/servers/start`.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::scene::available;

/// The login of SUBMISSION, SMTPS and every maildrop.
pub const USER: &str = "tester";
pub const PASSWORD: &str = "secret-word";

/// Both servers. Dropping it stops them.
pub struct Servers {
    folder: tempfile::TempDir,
    pub smtp: u16,
    pub submission: u16,
    pub smtps: u16,
}

impl Servers {
    /// Starts them, where they are to be had; says loudly that they are left out where not.
    pub fn start() -> Option<Servers> {
        let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        if !root {
            assert!(std::env::var_os("CI").is_none(), "root is needed for Postfix and Dovecot");
            eprintln!("LEFT OUT: Postfix and Dovecot are started by root only");
            return None;
        }
        if !available("postconf", "mail_version")
            || !available("dovecot", "--version")
            || !available("openssl", "version")
        {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("servers-").tempdir().expect("a temporary folder");
        let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        // All are held until all are known, so that they differ.
        let held: Vec<TcpListener> = (0..5).map(|_| free()).collect();
        let ports: Vec<u16> = held.iter().map(|port| port.local_addr().expect("an address").port()).collect();
        drop(held);
        let servers = Servers { folder, smtp: ports[0], submission: ports[1], smtps: ports[2] };
        // A file, not a pipe: whatever a server keeps open, nobody waits for it.
        let said = servers.folder.path().join("said.log");
        let status = Command::new(script("start"))
            .arg(servers.folder.path())
            .args(ports.iter().map(u16::to_string))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said).expect("a log"))
            .status()
            .expect("tests/servers/start");
        assert!(status.success(), "{}", fs::read_to_string(&said).unwrap_or_default());
        Some(servers)
    }

    /// What signs the servers' certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Waits until Postfix has delivered so much, or nothing more arrives; says how often each
    /// address got a letter, and removes them.
    pub fn collect(&self, expected: usize) -> BTreeMap<String, usize> {
        let inbox = self.folder.path().join("mail/inbox/new");
        let mut count = 0;
        let mut progress = Instant::now();
        while count < expected && progress.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(100));
            let now = fs::read_dir(&inbox).map_or(0, Iterator::count);
            if now != count {
                (count, progress) = (now, Instant::now());
            }
        }
        let mut received = BTreeMap::new();
        for entry in fs::read_dir(&inbox).expect("the inbox") {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("a letter");
            let text = String::from_utf8_lossy(&bytes);
            let address = text.lines().find_map(|line| line.strip_prefix("X-Original-To: "));
            *received.entry(address.expect("Postfix names the recipient").to_owned()).or_insert(0) += 1;
            fs::remove_file(path).expect("a letter can be removed");
        }
        received
    }

    /// What Postfix has complained about, but for the clocks of the machine.
    pub fn complaints(&self) -> Vec<String> {
        let words = ["warning:", "error:", "fatal:", "panic:", "NOQUEUE", "improper"];
        let clocks = ["file system clock", "resetting file time stamps"];
        let log = fs::read_to_string(self.folder.path().join("postfix.log")).expect("Postfix' log");
        log.lines()
            .filter(|line| words.iter().any(|word| line.contains(word)))
            .filter(|line| !clocks.iter().any(|clock| line.contains(clock)))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = Command::new(script("stop")).arg(self.folder.path()).status(); // the folder goes anyway
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name)
}
