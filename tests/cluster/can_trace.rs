//! Tests that run nodes under strace ask here first.

use std::io::Write;
use std::process::Command;

/// Whether processes can be traced on this machine; containers often forbid it. If they cannot,
/// prints that this is skipped.
pub fn can_trace(what: &str) -> bool {
    let traced = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .output();
    match traced {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            // Writes directly to standard error, because the test harness would capture the
            // message.
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut stderr = std::io::stderr();
            writeln!(
                stderr,
                "\nSKIPPED: {what}: ptrace is not permitted here: {words}"
            )
            .expect("standard error");
            false
        }
        Err(error) => panic!(
            "strace can't be run ({error}): install it, as tests/run.sh does: apt-get install strace"
        ),
    }
}
