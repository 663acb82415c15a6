//! Certificates made for one scene.

use std::fs;
use std::path::Path;

/// Makes a certificate for `name` that signs itself: `cert.pem` and `key.pem` in `folder`.
pub fn make(folder: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("cert.pem"), made.cert.pem()).expect("cert.pem");
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("key.pem");
}
