//! C files that are preloaded into processes under test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles one, named from the package's root, to a library in that directory.
pub fn compile(source: &str, directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let name = source.file_name().expect("the name of a file");
    let library = directory.join(name).with_extension("so");
    let mut compiler = Command::new(std::env::var("CC").unwrap_or("cc".into()));
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
    compiler.arg(&library).arg(source).arg("-ldl");
    assert!(compiler.status().expect("a C compiler").success());
    library
}
