//! Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    postroom::run::main().into()
}
