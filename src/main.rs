//! The program: `umvu` and the commands that go by names of their own (`vumount`, `fusermount3`, ...).

use std::process::ExitCode;

fn main() -> ExitCode {
    umvu::commands::main(std::env::args_os().collect())
}
